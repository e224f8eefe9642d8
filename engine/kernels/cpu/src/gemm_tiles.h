// Products with tile registers. Each sum is made in one order, whatever the number of rows and however they are shared out.
//
// bfloat16: 16 or 32 rows with two panels at once, up to 16 rows with four. A panel is a column of registers as it lies.
#define SLAB 16  // registers of two panels, 32 KB, that stay in the first cache while all rows pass it by
#define MOST_ROWS 512
#define MOST_PAIRS (MOST_ROWS / (2 * TILE_ROWS))
#define MOST_ROWS_BYTES (2 << 19)  // of inputs that stay in the second cache while all panels go by
#define MOST_KEPT_BYTES (1 << 19)  // of a thread's outputs: more would push inputs and weights out of the second cache
#define PART_PAIRS 16  // of panels whose sums of as many rows wait in the second cache, 1 MB, beside a slab of inputs
#define LINE 64
#define SUMS_LINES (2 * 4 * TILE_ROWS / SLAB)  // of sums, asked for at each step of the second half of a slab
#define AHEAD_LINES 64  // of each panel, for few rows

typedef struct {
  const char *x;  // the first register of 16 rows
  size_t x_apart;  // bytes to the next 16 rows
  const char *w;  // the first register of a panel
  ptrdiff_t w_apart;  // bytes to the next panel
  long steps;  // registers of each that are multiplied
  const char *ahead;  // weights that are needed soon
  long ahead_lines;  // of them, for each step
  const char *sums;  // those that are loaded next; or null if they are in the first cache, or nearly so
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

// How sums leave: with an activation; as whole panels without bias, added to what is there, past the caches or into them; or as
// `finish` has it.
enum { NOTHING, AS_FINISHED, GATED, ADDED, PAST, KEPT };

INLINE int way_out(const Leaving *l) {
  const Product *p = l->product;
  if (l->left >= l->rows) return NOTHING;
  if (p->gated) return GATED;
  if (LANES != PANEL || p->linear->bias || l->panels != 2 || (l->index + 2) * PANEL > p->linear->outputs) return AS_FINISHED;
  return p->add ? ADDED : p->past ? PAST : KEPT;
}

// One more row leaves; `way` is a constant.
INLINE void leave_row(Leaving *l, int way) {
  const Product *p = l->product;
  float(*sums)[TILE_ROWS][PANEL] = l->sums + l->left / TILE_ROWS * 2;
  long row = l->row + l->left, at = l->left % TILE_ROWS;
  const float *from = sums[0][at], *beside = sums[1][at];
  l->left++;
  if (way == GATED) {
    leave_gated(p, from, beside, row, l->index * PANEL);
  } else if (way == AS_FINISHED) {
    for (long panel = 0; panel < l->panels; panel++) finish(p, (vec(*)[VECS])sums[panel][at], row, 1, (l->index + panel) * PANEL);
  } else {
    float *to = place_of(p, row, l->index * PANEL);
    vec one = load(from), other = load(beside);
    if (way == ADDED) one += load(to), other += load(to + PANEL);
    if (way == PAST) store_past(to, one), store_past(to + PANEL, other);
    else store(to, one), store(to + PANEL, other);
  }
}

static void leave(Leaving *l) {
  if (!l->rows) return;
  while (l->left < l->rows) leave_row(l, l->product->gated ? GATED : AS_FINISHED);
}

// One or two blocks of 16 rows with one or two panels: tile 0 and 1 += the first block, 2 and 3 += the second. What is
// leaving has left then.
INLINE void dots_of_blocks(const TileDots *d, int blocks, int panels, Leaving *l, int way) {
  const char *x = d->x, *w = d->w, *ahead = d->ahead, *sums = d->sums;
  long each_step = way ? (l->rows + d->steps - 1) / d->steps : 0;
  for (long k = 0; k < d->steps; k++, x += TILE_BYTES, w += TILE_BYTES, ahead += d->ahead_lines * LINE) {
    tile_load_past(4, x, LINE);
    tile_load(6, w, LINE);
    tile_dot_bf16(0, 4, 6);
    if (panels > 1) { tile_load(7, w + d->w_apart, LINE); tile_dot_bf16(1, 4, 7); }
    if (blocks > 1) { tile_load_past(5, x + d->x_apart, LINE); tile_dot_bf16(2, 5, 6); }
    if (blocks > 1 && panels > 1) tile_dot_bf16(3, 5, 7);
    for (int panel = 0; d->ahead_lines && panel < panels; panel++) prefetch_lines(ahead + panel * d->w_apart, d->ahead_lines);
    if (sums && k >= SLAB / 2) {  // earlier, the sums before these are still on their way to the cache
      for (int line = 0; line < SUMS_LINES; line++) __builtin_prefetch(sums + line * LINE, 1, 3);
      sums += SUMS_LINES * LINE;
    }
    if (way) for (long i = least(each_step, l->rows - l->left); i > 0; i--) leave_row(l, way);
  }
}

static void multiply_tile_blocks(const TileDots *d, int blocks, int panels, Leaving *leaving) {
  if (blocks == 2 && panels == 2) {
    switch (leaving ? way_out(leaving) : NOTHING) {
      case NOTHING: dots_of_blocks(d, 2, 2, leaving, NOTHING); break;
      case GATED: dots_of_blocks(d, 2, 2, leaving, GATED); break;
      case ADDED: dots_of_blocks(d, 2, 2, leaving, ADDED); break;
      case PAST: dots_of_blocks(d, 2, 2, leaving, PAST); break;
      case KEPT: dots_of_blocks(d, 2, 2, leaving, KEPT); break;
      default: dots_of_blocks(d, 2, 2, leaving, AS_FINISHED);
    }
    return;
  }
  if (leaving) leave(leaving);
  if (blocks == 2) dots_of_blocks(d, 2, 1, NULL, NOTHING);
  else if (panels == 2) dots_of_blocks(d, 1, 2, NULL, NOTHING);
  else dots_of_blocks(d, 1, 1, NULL, NOTHING);
}

// The same for few inputs and weights of the first two caches.
INLINE void near_dots_of_blocks(const TileDots *d, int blocks, int panels) {
  const char *x = d->x, *w = d->w;
  for (long k = 0; k < d->steps; k++, x += TILE_BYTES, w += TILE_BYTES) {
    tile_load(4, x, LINE);
    tile_load(6, w, LINE);
    tile_dot_bf16(0, 4, 6);
    if (panels > 1) { tile_load(7, w + d->w_apart, LINE); tile_dot_bf16(1, 4, 7); }
    if (blocks > 1) { tile_load(5, x + d->x_apart, LINE); tile_dot_bf16(2, 5, 6); }
    if (blocks > 1 && panels > 1) tile_dot_bf16(3, 5, 7);
  }
}

INLINE void multiply_near_blocks(const TileDots *d, int blocks, int panels) {
  if (blocks == 2 && panels == 2) near_dots_of_blocks(d, 2, 2);
  else if (blocks == 2) near_dots_of_blocks(d, 2, 1);
  else if (panels == 2) near_dots_of_blocks(d, 1, 2);
  else near_dots_of_blocks(d, 1, 1);
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

typedef float Sums[4][TILE_ROWS][PANEL];  // of 16 or 32 rows with one or two panels, as tiles 0 to 3 have them

INLINE void zero_sums(void) { tile_zero(0); tile_zero(1); tile_zero(2); tile_zero(3); }
INLINE void load_sums(Sums sums) {
  tile_load(0, sums[0], LINE); tile_load(1, sums[1], LINE); tile_load(2, sums[2], LINE); tile_load(3, sums[3], LINE);
}
INLINE void store_sums(Sums sums) {
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
    for (long panel = 0; panel < panels; panel++) __builtin_prefetch(place_of(p, row + i, (index + panel) * PANEL), 1, 3);
}

// A block of a product: `rows` rows from `row` on, one or two panels from `index` on (or a panel of gates and its ups), and
// registers of inputs `start` to `end`.
typedef struct {
  long row, rows;
  long index, panels;
  long start, end;
} Block;

// Slabs of the panels go by in turn; sums [pairs of blocks of rows] wait in between, from zero if the block is the first of
// its rows and panels. They leave if it is the last one.
static void multiply_block(const Product *p, const Block *b, Sums *sums, Leaving *leaving) {
  size_t apart = panel_bytes(p->linear->inputs, BF16);
  long steps = whole_tiles(p->linear->inputs) / TILE_INPUTS, blocks = (b->rows + TILE_ROWS - 1) / TILE_ROWS;
  long slab = blocks > 2 ? SLAB : b->end - b->start;  // sums of one pair of blocks need not wait
  TileDots d = {.x_apart = steps * TILE_BYTES, .w_apart = p->gated ? panels_of(p->linear) / 2 * apart : apart};
  long following = p->gated ? apart : 2 * apart;  // bytes to the panels that come next
  for (long start = b->start; start < b->end; start += slab) {
    d.steps = least(slab, b->end - start);
    d.w = (const char *)p->linear->weights + b->index * apart + start * TILE_BYTES;
    const char *next_slab = start + slab < b->end ? d.w + slab * TILE_BYTES : d.w + following - (start - b->start) * TILE_BYTES;
    long pairs = (blocks + 1) / 2 * d.steps;
    d.ahead_lines = (slab * TILE_BYTES / LINE + pairs - 1) / pairs;
    for (long block = 0; block < blocks; block += 2) {
      long both = least(2, blocks - block), row = b->row + block * TILE_ROWS, rows = least(both * TILE_ROWS, b->row + b->rows - row);
      float(*sum)[TILE_ROWS][PANEL] = sums[block / 2];
      int is_last = start + d.steps == steps;
      d.ahead = next_slab + block / 2 * d.steps * d.ahead_lines * LINE;
      d.x = (const char *)p->x + (row / TILE_ROWS * steps + start) * TILE_BYTES;
      d.sums = b->end - b->start < steps ? (const char *)sums[block / 2 + 1] : NULL;
      if (p->add && is_last) ask_for_sums(p, row, rows, b->index, b->panels);
      if (start) load_sums(sum);
      else zero_sums();
      multiply_tile_blocks(&d, both, b->panels, leaving);
      store_sums(sum);
      if (is_last) *leaving = (Leaving){p, sum, row, rows, b->index, b->panels, 0};
    }
  }
}

// Rows that meet all panels before the next ones do.
INLINE long rows_at_once(long inputs) {
  long most = MOST_ROWS_BYTES / (2 * inputs) / (2 * TILE_ROWS) * (2 * TILE_ROWS);
  return most < 2 * TILE_ROWS ? 2 * TILE_ROWS : least(most, MOST_ROWS);
}

// As `multiply_tiles` for a panel, or two, after the other: inputs of `most` rows stay in the second cache.
static void multiply_by_rows(const Product *p, long from, long to, long most, long end, Leaving *leaving) {
  _Alignas(64) Sums sums[MOST_PAIRS];
  long steps = whole_tiles(p->linear->inputs) / TILE_INPUTS;
  for (long row = p->first; row < end; row += most)
    for (long index = from; index < to; index += p->gated ? 1 : 2) {
      Block block = {row, least(most, end - row), index, p->gated ? 2 : least(2, to - index), 0, steps};
      multiply_block(p, &block, sums, leaving);
    }
  leave(leaving);
}

// Where inputs of few rows would fill the second cache: a slab of the inputs of many rows meets some panels, then the next
// slab does, while the sums of all wait. So weights are read for more rows at once.
static void multiply_by_slabs(const Product *p, long from, long to, long end, Leaving *leaving) {
  _Alignas(64) Sums sums[PART_PAIRS * MOST_PAIRS + 1];  // what is asked for after the last ones is nobody's
  long steps = whole_tiles(p->linear->inputs) / TILE_INPUTS, each = p->gated ? 1 : 2;
  for (long row = p->first; row < end; row += MOST_ROWS)
    for (long first = from, last; first < to; first = last) {
      last = least(to, first + PART_PAIRS * each);
      for (long start = 0; start < steps; start += SLAB)
        for (long index = first; index < last; index += each) {
          Block block = {row, least(MOST_ROWS, end - row), index, p->gated ? 2 : least(2, last - index), start, least(steps, start + SLAB)};
          multiply_block(p, &block, sums + (index - first) / each * MOST_PAIRS, leaving);
        }
      leave(leaving);
    }
}

static void multiply_tiles(const Product *p, long from, long to) {
  if (!p->rows) return;
  shape_tiles(p->rows, TILE_ROWS);
  if (p->rows <= TILE_ROWS) {
    multiply_few_rows(p, from, to);
    return;
  }
  Leaving leaving = {0};
  long end = p->end ? p->end : p->rows, most = rows_at_once(p->linear->inputs);
  Product whole = *p;
  whole.past = !p->window && (size_t)(end - p->first) * (to - from) * PANEL * sizeof(float) > MOST_KEPT_BYTES;
  if (most < MOST_ROWS && most < end - p->first) multiply_by_slabs(&whole, from, to, end, &leaving);
  else multiply_by_rows(&whole, from, to, most, end, &leaving);
  if (whole.past) order_stores_past();
}
