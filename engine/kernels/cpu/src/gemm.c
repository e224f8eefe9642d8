// y = x W^T + b, with W packed in panels once when the model is loaded.
#if defined(__AVX512VNNI__)
#include "products_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "products_avx2.h"
#else
#include "products_portable.h"
#endif
#include "activation.h"
#include "tiles.h"

typedef struct {
  const void *weights;  // panels
  const void *scales;  // of whole numbers
  const float *bias;  // [outputs] or null
  long inputs, outputs;
  int type;
} Linear;

// Rows from `row` on and outputs from `output` on, `width` of them in a row.
typedef struct {
  long row, output, width;
} Window;

typedef struct {
  const Linear *linear;
  const void *x;  // [rows][inputs], tiled; pairs of bfloat16 where ``in_pairs(linear->type)``; Coded for whole numbers
  float *y;  // [rows][outputs]
  long rows;
  int add;  // to y, instead of overwriting it
  void *gated;  // takes act(gate) * up instead of y, [rows][outputs / 2] in tiles; the outputs are all gates, then all ups
  int gelu;
  long first, end;  // rows that the thread multiplies with all panels; else threads share the panels out
  int past;  // whether whole lines of y are written past the caches, unless they are added to
  const Window *window;  // where y is but a part of the outputs; null: all of them
} Product;

INLINE long panels_of(const Linear *linear) { return (linear->outputs + PANEL - 1) / PANEL; }

// Where an output of a row lies.
INLINE float *place_of(const Product *p, long row, long output) {
  const Window *w = p->window;
  if (w) return p->y + (row - w->row) * w->width + output - w->output;
  return p->y + row * p->linear->outputs + output;
}

INLINE void finish(const Product *p, vec acc[][VECS], long row, int rows, long first) {
  const float *bias = p->linear->bias, *scales = p->linear->type == INT8 ? (const float *)p->linear->scales + first : NULL;
  long left = p->linear->outputs - first;
  for (int i = 0; i < rows; i++) {
    float *to = place_of(p, row + i, first);
    if (left >= PANEL) {
      for (int v = 0; v < VECS; v++) {
        vec value = scales ? acc[i][v] * load(scales + v * LANES) : acc[i][v];
        if (bias) value += load(bias + first + v * LANES);
        if (p->add) value += load(to + v * LANES);
        if (p->past && !p->add) store_past(to + v * LANES, value);
        else store(to + v * LANES, value);
      }
    } else {
      const float *value = (const float *)acc[i];
      for (long n = 0; n < left; n++) to[n] = value[n] * (scales ? scales[n] : 1) + (bias ? bias[first + n] : 0) + (p->add ? to[n] : 0);
    }
  }
}

#define TILE_OF_PANEL(R)                                                                                \
  {                                                                                                     \
    vec acc[R][VECS] = {};                                                                              \
    if (linear->type == BF16) dots_bf16_##R(acc, x, 1, R, (const uint16_t *)panel, linear->inputs);     \
    else dots_f32_##R(acc, x, 1, R, (const float *)panel, linear->inputs);                              \
    finish(p, acc, start, R, first);                                                                    \
  }

#if HALVES && !TILES
// Few rows take four panels at once, so that enough sums are under way to hide an instruction's latency; more take two, as
// many as the registers hold.
#define FEW_ROWS 3
#define EACH_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
#define EACH_SHAPE(F) \
  F(1, 4) F(2, 4) F(3, 4) F(4, 2) F(5, 2) F(6, 2) F(7, 2) F(8, 2) F(9, 2) F(10, 2) F(11, 2) F(12, 2) \
  F(1, 1) F(2, 1) F(3, 1) F(4, 1) F(5, 1) F(6, 1) F(7, 1) F(8, 1) F(9, 1) F(10, 1) F(11, 1) F(12, 1)
#define PAIR_TILE(R, P)                                                                                       \
  PAIR_DOTS(R, P)                                                                                             \
  static void pair_tile_##R##_##P(const Product *p, const uint32_t *x, const char *w, long start, long first) { \
    __m512 acc[R][P] = {};                                                                                    \
    pair_dots_##R##_##P(acc, x, w, panel_bytes(p->linear->inputs, BF16), p->linear->inputs);                     \
    for (int at = 0; at < P; at++) {                                                                          \
      vec one[R][VECS];                                                                                       \
      for (int i = 0; i < R; i++) one[i][0] = (vec)acc[i][at];                                                \
      finish(p, one, start, R, first + at * PANEL);                                                           \
    }                                                                                                         \
  }
EACH_SHAPE(PAIR_TILE)

static void multiply_pairs(const Product *p, long from, long to) {
  const Linear *linear = p->linear;
  long count = tiles(p->rows), most = p->rows <= FEW_ROWS ? 4 : 2;
  for (long index = from, together; index < to; index += together) {
    together = to - index >= most ? most : 1;
    const char *w = (const char *)linear->weights + index * panel_bytes(linear->inputs, BF16);
    for (long tile = 0; tile < count; tile++) {
      long start = tile_start(p->rows, tile), rows = tile_start(p->rows, tile + 1) - start;
      const uint32_t *x = (const uint32_t *)p->x + start * (linear->inputs / 2);
#define TRY_SHAPE(R, P) if (rows == R && together == P) pair_tile_##R##_##P(p, x, w, start, index * PANEL);
      EACH_SHAPE(TRY_SHAPE)
    }
  }
}
#endif

#if TILES
#include "gemm_tiles.h"
#include "coded_tiles.h"
#endif

static void multiply_coded(const Product *p, long from, long to) {
#if TILES
  if (p->rows > FEW_CODED_ROWS) {
    multiply_coded_tiles(p, from, to);
    return;
  }
#endif
  const Linear *linear = p->linear;
  long count = coded_tiles(p->rows), groups = linear->inputs / GROUP;
  long most = count ? coded_together((p->rows + count - 1) / count) : 1;
  size_t apart = coded_panel_bytes(linear->inputs, linear->type);
  for (long index = from, together; index < to; index += together) {
    together = to - index >= most ? most : 1;
    const uint16_t *scales = (const uint16_t *)linear->scales + index * groups * scales_per_group(linear->type);
    CodedPanels w = {(const char *)linear->weights + index * apart, scales, apart, groups};
    for (long tile = 0; tile < count; tile++) {
      long start = coded_tile_start(p->rows, tile), rows = coded_tile_start(p->rows, tile + 1) - start;
      vec sums[MAX_SUMS][VECS];
      multiply_coded_tile((float *)sums, coded(p->x, p->rows, linear->inputs, start), rows, w, linear->type, together);
      for (long at = 0; at < together; at++) finish(p, sums + at * rows, start, rows, (index + at) * PANEL);
    }
  }
}

static void multiply_panels(const Product *p, long from, long to) {
  const Linear *linear = p->linear;
  long count = tiles(p->rows);
  if (is_coded(linear->type)) {
    multiply_coded(p, from, to);
    return;
  }
#if TILES
  if (in_pairs(linear->type)) {
    multiply_tiles(p, from, to);
    return;
  }
#elif HALVES
  if (in_pairs(linear->type)) {
    multiply_pairs(p, from, to);
    return;
  }
#endif
  for (long index = from; index < to; index++) {
    const char *panel = (const char *)linear->weights + index * panel_bytes(linear->inputs, linear->type);
    long first = index * PANEL;
    for (long tile = 0; tile < count; tile++) {
      long start = tile_start(p->rows, tile), end = tile_start(p->rows, tile + 1);
      const float *x = (const float *)p->x + start * linear->inputs;
      FOR_ROWS(end - start, TILE_OF_PANEL)
    }
  }
}

// Whether a product may have `gated`: where outputs are many, to write and read them takes longer than the activation.
INLINE int can_gate(const Linear *linear, long rows) { return TILES && in_pairs(linear->type) && rows > TILE_ROWS; }

// The panels of thread `me` of `threads`.
static void multiply(const Product *p, int me, int threads) {
  long panels = p->gated ? panels_of(p->linear) / 2 : panels_of(p->linear);
  if (p->end) me = 0, threads = 1;
  multiply_panels(p, panels * me / threads, panels * (me + 1) / threads);
}
