// A few rows against one panel: the one loop in which nearly all time goes, for weights, keys and values alike.
//
// A panel holds 16 outputs: [inputs][16] in float32; in bfloat16 [inputs / 2][16][2], so that one load brings two inputs
// of every output, to be parted by a shift and a mask.
//
// Every output adds up its products in the order of the inputs, whatever the number of rows: a row's result does not
// depend on the rows beside it, to the bit.
#pragma once
#include "vector.h"

#define PANEL 16
#define VECS (PANEL / LANES)  // vectors that one row of a panel fills
#if LANES == 16
#define MOST_ROWS 12
#else
#define MOST_ROWS 6
#endif

INLINE size_t panel_bytes(long inputs, int type) { return (size_t)inputs * PANEL * (type == BF16 ? 2 : 4); }

// acc[R][16] += x[R][inputs] * panel. Element (i, k) of x is x[i * across + k * along]; both are constants wherever this
// is inlined, so that one pointer serves all rows.
#define DOTS(R)                                                                                                     \
  INLINE void dots_f32_##R(vec acc[R][VECS], const float *x, long across, long along, const float *w, long inputs) { \
    for (long k = 0; k < inputs; k++, x += along)                                                                   \
      for (int v = 0; v < VECS; v++) {                                                                              \
        vec weights = load(w + k * PANEL + v * LANES);                                                              \
        for (int i = 0; i < R; i++) acc[i][v] += weights * x[i * across];                                           \
      }                                                                                                             \
  }                                                                                                                 \
  INLINE void dots_bf16_##R(vec acc[R][VECS], const float *x, long across, long along, const uint16_t *w,           \
                            long inputs) {                                                                          \
    for (long k = 0; k < inputs; k += 2, x += 2 * along)                                                            \
      for (int v = 0; v < VECS; v++) {                                                                              \
        ivec pairs = *(const ivec_u *)(w + k * PANEL + v * 2 * LANES);                                              \
        vec even = lower(pairs), odd = upper(pairs);                                                                \
        for (int i = 0; i < R; i++) acc[i][v] += even * x[i * across];                                              \
        for (int i = 0; i < R; i++) acc[i][v] += odd * x[i * across + along];                                       \
      }                                                                                                             \
  }
DOTS(1)
DOTS(2)
DOTS(3)
DOTS(4)
DOTS(5)
DOTS(6)
#if MOST_ROWS == 12
DOTS(7)
DOTS(8)
DOTS(9)
DOTS(10)
DOTS(11)
DOTS(12)
#endif

// CALL(R) for the number of rows at hand.
#if MOST_ROWS == 12
#define FOR_ROWS(rows, CALL)                                                                                        \
  switch (rows) {                                                                                                   \
    case 1: CALL(1) break; case 2: CALL(2) break; case 3: CALL(3) break; case 4: CALL(4) break;                     \
    case 5: CALL(5) break; case 6: CALL(6) break; case 7: CALL(7) break; case 8: CALL(8) break;                     \
    case 9: CALL(9) break; case 10: CALL(10) break; case 11: CALL(11) break; case 12: CALL(12) break;               \
  }
#else
#define FOR_ROWS(rows, CALL)                                                                                        \
  switch (rows) {                                                                                                   \
    case 1: CALL(1) break; case 2: CALL(2) break; case 3: CALL(3) break;                                            \
    case 4: CALL(4) break; case 5: CALL(5) break; case 6: CALL(6) break;                                            \
  }
#endif

// Rows go through the loops in tiles of as equal a number as can be. In a tiled matrix the rows of a tile lie side by
// side, [inputs][rows of the tile]; with one row that is the plain matrix.
INLINE long tiles(long rows) { return (rows + MOST_ROWS - 1) / MOST_ROWS; }
INLINE long tile_start(long rows, long tile) { return rows * tile / tiles(rows); }

// Where element 0 of `row` lies in a tiled matrix; the next is `*step` floats on.
INLINE float *tiled_row(float *matrix, long rows, long row, long width, long *step) {
  long tile = ((row + 1) * tiles(rows) - 1) / rows, start = tile_start(rows, tile);
  *step = tile_start(rows, tile + 1) - start;
  return matrix + start * width + (row - start);
}
