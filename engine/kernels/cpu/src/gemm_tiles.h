// Products with tile registers. Each sum is made in one order, whatever the number of rows and however they are shared out.
//
// bfloat16: 16 or 32 rows with two panels at once, up to 16 rows with four. A panel is a column of registers as it lies.
// Whole numbers: a group of 32 inputs is half a register; what it gives is exact, and is scaled and added up as with any
// other instruction, to the same bits. So a few rows may go without tiles.
#define SLAB 16  // registers of two panels, 32 KB, that stay in the first cache while all rows pass it by
#define MOST_ROWS 512
#define MOST_ROWS_BYTES (2 << 19)  // of inputs that stay in the second cache while all panels go by
#define MOST_KEPT_BYTES (1 << 19)  // of a thread's outputs: more would push inputs and weights out of the second cache
#define LINE 64
#define AHEAD_LINES 64  // of each panel, for few rows

typedef struct {
  const char *x;  // the first register of 16 rows
  size_t x_apart;  // bytes to the next 16 rows
  const char *w;  // the first register of a panel
  ptrdiff_t w_apart;  // bytes to the next panel
  long steps;  // registers of each that are multiplied
  const char *ahead;  // weights that are needed soon
  long ahead_lines;  // of them, for each step
} TileDots;

// Sums that are whole, on their way out while the next ones are multiplied: tile registers and vectors work side by side.
typedef struct {
  const Product *product;
  float (*sums)[TILE_ROWS][PANEL];  // one or two blocks of rows, of two panels each
  long row, rows;
  long index, panels;  // the first panel, and one or two
  long left;  // rows that are out
} Leaving;

INLINE void prefetch_lines(const char *from, long lines) {
  for (long line = 0; line < lines; line++) __builtin_prefetch(from + line * LINE, 0, 2);
}

// Up to 16 rows with one to four panels, read once: tile 0 to 3 += inputs * weights.
INLINE void dots_of_few_rows(const TileDots *d, int panels) {
  const char *x = d->x, *w = d->w;
  for (long k = 0; k < d->steps; k++, x += TILE_BYTES, w += TILE_BYTES) {
    tile_load(4, x, LINE);
    tile_load(6, w, LINE);
    tile_dot_bf16(0, 4, 6);
    if (panels > 1) { tile_load(7, w + d->w_apart, LINE); tile_dot_bf16(1, 4, 7); }
    if (panels > 2) { tile_load(6, w + 2 * d->w_apart, LINE); tile_dot_bf16(2, 4, 6); }
    if (panels > 3) { tile_load(7, w + 3 * d->w_apart, LINE); tile_dot_bf16(3, 4, 7); }
    for (int panel = 0; panel < panels; panel++) prefetch_lines(w + panel * d->w_apart + d->ahead_lines * LINE, TILE_BYTES / LINE);
  }
}

// act(gate) * up of 16 outputs of a row.
INLINE void leave_gated(const Product *p, const float *gates, const float *ups, long row, long first) {
  long width = p->linear->outputs / 2;
  const float *bias = p->linear->bias;
  TiledRow to = row_in_tiles(p->gated, row, width);
  for (int v = 0; v < VECS; v++) {
    long at = first + v * LANES;
    vec gate = load(gates + v * LANES), up = load(ups + v * LANES);
    if (bias) gate += load(bias + at), up += load(bias + width + at);
    put(&to, at, gated(gate, up, p->gelu));
  }
}

INLINE void leave(Leaving *l, long count) {
  for (long end = least(l->rows, l->left + count); l->left < end; l->left++) {
    float(*sums)[TILE_ROWS][PANEL] = l->sums + l->left / TILE_ROWS * 2;
    long row = l->row + l->left, at = l->left % TILE_ROWS;
    if (l->product->gated) leave_gated(l->product, sums[0][at], sums[1][at], row, l->index * PANEL);
    else for (long panel = 0; panel < l->panels; panel++) finish(l->product, (vec(*)[VECS])sums[panel][at], row, 1, (l->index + panel) * PANEL);
  }
}

// One or two blocks of 16 rows with one or two panels: tile 0 and 1 += the first block, 2 and 3 += the second. What is
// leaving has left then.
INLINE void dots_of_blocks(const TileDots *d, int blocks, int panels, Leaving *leaving) {
  const char *x = d->x, *w = d->w, *ahead = d->ahead;
  long each_step = leaving ? (leaving->rows + d->steps - 1) / d->steps : 0;
  for (long k = 0; k < d->steps; k++, x += TILE_BYTES, w += TILE_BYTES, ahead += d->ahead_lines * LINE) {
    tile_load_past(4, x, LINE);
    tile_load(6, w, LINE);
    tile_dot_bf16(0, 4, 6);
    if (panels > 1) { tile_load(7, w + d->w_apart, LINE); tile_dot_bf16(1, 4, 7); }
    if (blocks > 1) { tile_load_past(5, x + d->x_apart, LINE); tile_dot_bf16(2, 5, 6); }
    if (blocks > 1 && panels > 1) tile_dot_bf16(3, 5, 7);
    for (int panel = 0; d->ahead_lines && panel < panels; panel++) prefetch_lines(ahead + panel * d->w_apart, d->ahead_lines);
    if (leaving) leave(leaving, each_step);
  }
}

INLINE void multiply_tile_blocks(const TileDots *d, int blocks, int panels, Leaving *leaving) {
  if (blocks == 2 && panels == 2) dots_of_blocks(d, 2, 2, leaving);
  else if (blocks == 2) dots_of_blocks(d, 2, 1, leaving);
  else if (panels == 2) dots_of_blocks(d, 1, 2, leaving);
  else dots_of_blocks(d, 1, 1, leaving);
}

// Tiles 0 to 3 as `multiply_tile_blocks` has them, from and to rows of `width` floats.
INLINE void load_blocks(const float *from, long width, int blocks, int panels) {
  const float *below = from + TILE_ROWS * width;
  long stride = width * sizeof(float);
  tile_load(0, from, stride);
  if (panels == 2) tile_load(1, from + PANEL, stride);
  if (blocks == 2) tile_load(2, below, stride);
  if (blocks == 2 && panels == 2) tile_load(3, below + PANEL, stride);
}
INLINE void store_blocks(float *to, long width, int blocks, int panels) {
  float *below = to + TILE_ROWS * width;
  long stride = width * sizeof(float);
  tile_store(0, to, stride);
  if (panels == 2) tile_store(1, to + PANEL, stride);
  if (blocks == 2) tile_store(2, below, stride);
  if (blocks == 2 && panels == 2) tile_store(3, below + PANEL, stride);
}

INLINE void zero_sums(void) { tile_zero(0); tile_zero(1); tile_zero(2); tile_zero(3); }
INLINE void load_sums(float sums[4][TILE_ROWS][PANEL]) {
  tile_load(0, sums[0], LINE); tile_load(1, sums[1], LINE); tile_load(2, sums[2], LINE); tile_load(3, sums[3], LINE);
}
INLINE void store_sums(float sums[4][TILE_ROWS][PANEL]) {
  tile_store(0, sums[0], LINE); tile_store(1, sums[1], LINE); tile_store(2, sums[2], LINE); tile_store(3, sums[3], LINE);
}

INLINE void finish_tile(const Product *p, float sums[TILE_ROWS][PANEL], long row, long rows, long first) {
  finish(p, (vec(*)[VECS])sums, row, (int)rows, first);
}

static void multiply_few_rows(const Product *p, long from, long to) {
  size_t apart = panel_bytes(p->linear->inputs, BF16);
  _Alignas(64) float sums[4][TILE_ROWS][PANEL];
  TileDots d = {.x = p->x, .w_apart = apart, .steps = whole_tiles(p->linear->inputs) / TILE_INPUTS, .ahead_lines = AHEAD_LINES};
  d.w = (const char *)p->linear->weights + from * apart;
  for (long index = from, panels; index < to; index += panels, d.w += panels * apart) {
    panels = least(4, to - index);
    zero_sums();
    switch (panels) {
      case 4: dots_of_few_rows(&d, 4); break;
      case 3: dots_of_few_rows(&d, 3); break;
      case 2: dots_of_few_rows(&d, 2); break;
      default: dots_of_few_rows(&d, 1);
    }
    store_sums(sums);
    for (long at = 0; at < panels; at++) finish_tile(p, sums[at], 0, p->rows, (index + at) * PANEL);
  }
}

// Lines of y that are added to soon.
INLINE void ask_for_sums(const Product *p, long row, long rows, long index, long panels) {
  for (long i = 0; i < rows; i++)
    for (long panel = 0; panel < panels; panel++) __builtin_prefetch(p->y + (row + i) * p->linear->outputs + (index + panel) * PANEL, 1, 3);
}

// `rows` rows from `first_row` on with one or two panels from `index` on, or with a panel of gates and its ups. Slabs of the
// panels go by in turn; sums [pairs of blocks][4] wait in between.
static void multiply_blocks(const Product *p, long first_row, long rows, long index, long panels, float (*sums)[4][TILE_ROWS][PANEL], Leaving *leaving) {
  size_t apart = panel_bytes(p->linear->inputs, BF16);
  long steps = whole_tiles(p->linear->inputs) / TILE_INPUTS, blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
  long slab = blocks > 2 ? SLAB : steps;  // sums of one pair of blocks need not wait
  TileDots d = {.x_apart = steps * TILE_BYTES, .w_apart = p->gated ? panels_of(p->linear) / 2 * apart : apart};
  long following = p->gated ? apart : 2 * apart;  // bytes to the panels that come next
  for (long start = 0; start < steps; start += slab) {
    d.steps = least(slab, steps - start);
    d.w = (const char *)p->linear->weights + index * apart + start * TILE_BYTES;
    const char *next_slab = start + slab < steps ? d.w + slab * TILE_BYTES : d.w + following - start * TILE_BYTES;
    long pairs = (blocks + 1) / 2 * d.steps;
    d.ahead_lines = (slab * TILE_BYTES / LINE + pairs - 1) / pairs;
    for (long block = 0; block < blocks; block += 2) {
      long both = least(2, blocks - block), row = first_row + block * TILE_ROWS;
      float(*sum)[TILE_ROWS][PANEL] = sums[block / 2];
      d.ahead = next_slab + block / 2 * d.steps * d.ahead_lines * LINE;
      d.x = (const char *)p->x + (row / TILE_ROWS * steps + start) * TILE_BYTES;
      if (p->add && start + d.steps == steps) ask_for_sums(p, row, least(both * TILE_ROWS, first_row + rows - row), index, panels);
      if (start) load_sums(sum);
      else zero_sums();
      multiply_tile_blocks(&d, both, panels, leaving);
      store_sums(sum);
      if (start + d.steps == steps) *leaving = (Leaving){p, sum, row, least(both * TILE_ROWS, first_row + rows - row), index, panels, 0};
    }
  }
}

static void multiply_tiles(const Product *p, long from, long to) {
  if (!p->rows) return;
  shape_tiles(p->rows, TILE_ROWS);
  if (p->rows <= TILE_ROWS) {
    multiply_few_rows(p, from, to);
    return;
  }
  long most = MOST_ROWS_BYTES / (2 * p->linear->inputs) / (2 * TILE_ROWS) * (2 * TILE_ROWS);
  if (most < 2 * TILE_ROWS) most = 2 * TILE_ROWS;
  if (most > MOST_ROWS) most = MOST_ROWS;
  _Alignas(64) float sums[MOST_ROWS / (2 * TILE_ROWS)][4][TILE_ROWS][PANEL];
  Leaving leaving = {0};
  long end = p->end ? p->end : p->rows;
  Product whole = *p;
  whole.past = (size_t)(end - p->first) * (to - from) * PANEL * sizeof(float) > MOST_KEPT_BYTES;
  for (long row = p->first; row < end; row += most)
    for (long index = from; index < to; index += p->gated ? 1 : 2)
      multiply_blocks(&whole, row, least(most, end - row), index, p->gated ? 2 : least(2, to - index), sums, &leaving);
  leave(&leaving, leaving.rows);
  if (whole.past) order_stores_past();
}

#if TILES == HARDWARE && defined(__AVX512VNNI__)
#define FEW_CODED_ROWS 4
#else
#define FEW_CODED_ROWS 0  // other instructions add the groups up in another way
#endif
#define CODED_SLAB 32  // groups of a panel that stay in the first cache while all rows go by
#define AT_ONCE 4  // groups

// Groups of panels whose numbers are bytes: [groups][8][16][4].
static void unpack_halves(const char *from, uint8_t *to, long groups) {
  for (long row = 0; row < groups * WORDS / 2; row++, from += LINE, to += 2 * LINE)
    for (int i = 0; i < LINE; i++) {
      uint8_t both = (uint8_t)from[i];
      to[i] = both & 15, to[LINE + i] = both >> 4;
    }
}

typedef struct {
  Coded x;  // a block of rows
  const char *w;  // bytes of the first group
  const uint16_t *scales;  // of the first group
  long groups;
  int type;
} CodedDots;

// What a group's products are worth: sums [rows][16] += (part - offset) * scales + minimums.
INLINE void add_group(vec sums[][VECS], int32_t part[TILE_ROWS][PANEL], const CodedDots *d, long group, int type, int rows) {
  const uint16_t *scales = d->scales + group * scales_per_group(type);
  const float *by_row = d->x.scales + group * TILE_ROWS, *totals = d->x.totals + group * TILE_ROWS;
  const int32_t *row_sums = d->x.sums + group * TILE_ROWS;
  for (int v = 0; v < VECS; v++) {
    vec by = is_grouped(type) ? widen_float16(scales + v * LANES) : type == INT4 ? widen(scales + v * LANES) : splat(1);
    vec minimums = is_grouped(type) ? widen_float16(scales + PANEL + v * LANES) : splat(0);
    for (int i = 0; i < rows; i++) {
      ivec numbers = *(const ivec_u *)&part[i][v * LANES] - (int32_t)((uint32_t)row_sums[i] * (uint32_t)offset_of(type));
      sums[i][v] += __builtin_convertvector(numbers, vec) * (by * by_row[i]);
      if (is_grouped(type)) sums[i][v] += minimums * totals[i];
    }
  }
}

INLINE void coded_dots(float *to, const CodedDots *d, int type, int rows) {
  vec sums[TILE_ROWS][VECS];
  _Alignas(64) int32_t parts[AT_ONCE][TILE_ROWS][PANEL];
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECS; v++) sums[i][v] = load(to + i * PANEL + v * LANES);
  for (long group = 0; group < d->groups; group += AT_ONCE) {
    const char *x = (const char *)(d->x.words + group * WORDS * TILE_ROWS), *w = d->w + group * GROUP * PANEL;
    long count = least(AT_ONCE, d->groups - group), row_bytes = GROUP, group_bytes = GROUP * PANEL, block_bytes = GROUP * TILE_ROWS;
#define GROUP_OF(N, INPUTS, WEIGHTS)                  \
  if (count > N) {                                    \
    tile_zero(N);                                     \
    tile_load(INPUTS, x + N * block_bytes, row_bytes); \
    tile_load(WEIGHTS, w + N * group_bytes, LINE);    \
    tile_dot_int8(N, INPUTS, WEIGHTS);                \
    tile_store(N, parts[N], LINE);                    \
  }
    GROUP_OF(0, 4, 6) GROUP_OF(1, 5, 7) GROUP_OF(2, 4, 6) GROUP_OF(3, 5, 7)
    for (long n = 0; n < count; n++) add_group(sums, parts[n], d, group + n, type, rows);
  }
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECS; v++) store(to + i * PANEL + v * LANES, sums[i][v]);
}

static void coded_dots_of(float *to, const CodedDots *d, long rows) {
#define CODED_DOTS(TYPE)                                     \
  case TYPE:                                                 \
    if (rows > TILE_ROWS / 2) coded_dots(to, d, TYPE, TILE_ROWS); \
    else coded_dots(to, d, TYPE, TILE_ROWS / 2);             \
    break;
  switch (d->type) { CODED_DOTS(INT8) CODED_DOTS(INT4) CODED_DOTS(GROUPED8) CODED_DOTS(GROUPED4) }
}

// `rows` rows from `first_row` on with one panel.
static void multiply_coded_blocks(const Product *p, long first_row, long rows, long index) {
  const Linear *linear = p->linear;
  int type = linear->type;
  long groups = linear->inputs / GROUP, blocks = (rows + TILE_ROWS - 1) / TILE_ROWS, scale_step = scales_per_group(type);
  _Alignas(64) float sums[blocks][TILE_ROWS][PANEL];
  uint8_t unpacked[in_halves(type) ? CODED_SLAB * GROUP * PANEL : 1];
  memset(sums, 0, sizeof(sums));
  for (long start = 0; start < groups; start += CODED_SLAB) {
    long count = least(CODED_SLAB, groups - start);
    const char *w = (const char *)linear->weights + index * coded_panel_bytes(linear->inputs, type) + start * coded_panel_bytes(GROUP, type);
    if (in_halves(type)) unpack_halves(w, unpacked, count);
    CodedDots d = {.w = in_halves(type) ? (const char *)unpacked : w, .groups = count, .type = type};
    d.scales = (const uint16_t *)linear->scales + (index * groups + start) * scale_step;
    for (long block = 0; block < blocks; block++) {
      long row = first_row + block * TILE_ROWS;
      d.x = coded_from(coded(p->x, p->rows, linear->inputs, row), TILE_ROWS, 0, start);
      coded_dots_of((float *)sums[block], &d, first_row + rows - row);
    }
  }
  for (long block = 0; block < blocks; block++)
    finish_tile(p, sums[block], first_row + block * TILE_ROWS, least(TILE_ROWS, rows - block * TILE_ROWS), index * PANEL);
}

static void multiply_coded_tiles(const Product *p, long from, long to) {
  shape_tiles(p->rows, WORDS);
  for (long row = 0; row < p->rows; row += MOST_ROWS)
    for (long index = from; index < to; index++) multiply_coded_blocks(p, row, least(MOST_ROWS, p->rows - row), index);
}
