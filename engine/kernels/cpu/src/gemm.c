// y = x W^T + b, with W packed in panels once when the model is loaded.
#include "panel.h"

typedef struct {
  const void *weights;  // panels
  const float *bias;  // [outputs] or null
  long inputs, outputs;
  int type;
} Linear;

typedef struct {
  const Linear *linear;
  const float *x;  // [rows][inputs], tiled
  float *y;  // [rows][outputs]
  long rows;
  int add;  // to y, instead of overwriting it
} Product;

INLINE void finish(const Product *p, vec acc[][VECS], long row, int rows, long first) {
  const float *bias = p->linear->bias;
  long left = p->linear->outputs - first;
  for (int i = 0; i < rows; i++) {
    float *to = p->y + (row + i) * p->linear->outputs + first;
    if (left >= PANEL) {
      for (int v = 0; v < VECS; v++) {
        vec value = acc[i][v];
        if (bias) value += load(bias + first + v * LANES);
        if (p->add) value += load(to + v * LANES);
        store(to + v * LANES, value);
      }
    } else {
      const float *value = (const float *)acc[i];
      for (long n = 0; n < left; n++) to[n] = value[n] + (bias ? bias[first + n] : 0) + (p->add ? to[n] : 0);
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

// The panels of thread `me` of `threads`.
static void multiply(const Product *p, int me, int threads) {
  const Linear *linear = p->linear;
  long panels = (linear->outputs + PANEL - 1) / PANEL, count = tiles(p->rows);
  long from = panels * me / threads, to = panels * (me + 1) / threads;
  for (long index = from; index < to; index++) {
    const char *panel = (const char *)linear->weights + index * panel_bytes(linear->inputs, linear->type);
    long first = index * PANEL;
    for (long tile = 0; tile < count; tile++) {
      long start = tile_start(p->rows, tile), end = tile_start(p->rows, tile + 1);
      const float *x = p->x + start * linear->inputs;
      FOR_ROWS(end - start, TILE_OF_PANEL)
    }
  }
}
