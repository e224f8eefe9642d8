// Products of whole numbers with tile registers.
//
// A group of 32 inputs is half a register; what it gives is exact, and is scaled and added up as with any other instruction, to
// the same bits. So a few rows may go without tiles.
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
