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
// side, [inputs][rows of the tile]; with one row that is the plain matrix. Where products take pairs of bfloat16, so does
// the matrix: [inputs / 2][rows of the tile][2].
INLINE long tiles(long rows) { return (rows + MOST_ROWS - 1) / MOST_ROWS; }
INLINE long tile_start(long rows, long tile) { return rows * tile / tiles(rows); }

// Whether products with weights of `type` take their inputs as pairs of bfloat16.
INLINE int in_pairs(int type) { return HALVES && type == BF16; }

// A row of a tiled matrix, to be written. `step`: words from one element, or pair, to the next.
typedef struct {
  uint32_t *to;
  long step;
  int pairs;
} TiledRow;

INLINE TiledRow tiled_row(void *matrix, long rows, long row, long width, int pairs) {
  long tile = ((row + 1) * tiles(rows) - 1) / rows, start = tile_start(rows, tile);
  long step = tile_start(rows, tile + 1) - start;
  return (TiledRow){(uint32_t *)matrix + start * (pairs ? width / 2 : width) + (row - start), step, pairs};
}

// Elements `at` to `at` + LANES - 1 of the row; `at` is a multiple of LANES.
INLINE void put(const TiledRow *row, long at, vec value) {
#if HALVES
  if (row->pairs) {
    __m256i narrow = (__m256i)_mm512_cvtneps_pbh((__m512)value);
    uint32_t words[LANES / 2];
    _mm256_storeu_si256((__m256i *)words, narrow);
    uint32_t *to = row->to + at / 2 * row->step;
    if (row->step == 1) _mm256_storeu_si256((__m256i *)to, narrow);
    else for (int i = 0; i < LANES / 2; i++) to[i * row->step] = words[i];
    return;
  }
#endif
  float *to = (float *)row->to + at * row->step;
  if (row->step == 1) store(to, value);
  else for (int i = 0; i < LANES; i++) to[i * row->step] = value[i];
}

#if HALVES
// acc[R][P] += x[R][inputs] * P panels that lie `apart` numbers from each other, all in pairs of bfloat16; x is tiled. The
// order in which an output adds up its products is that of the inputs, by pairs, for any R and P.
#define PAIR_DOTS(R, P)                                                                                             \
  INLINE void pair_dots_##R##_##P(__m512 acc[R][P], const uint32_t *x, const uint16_t *w, size_t apart, long inputs) { \
    for (long k = 0; k < inputs; k += 2, x += R, w += 2 * PANEL) {                                                  \
      __m512bh weights[P];                                                                                          \
      for (int p = 0; p < P; p++) weights[p] = (__m512bh)_mm512_loadu_si512(w + p * apart);                         \
      for (int i = 0; i < R; i++) {                                                                                 \
        __m512bh input = (__m512bh)_mm512_set1_epi32((int)x[i]);                                                    \
        for (int p = 0; p < P; p++) acc[i][p] = _mm512_dpbf16_ps(acc[i][p], input, weights[p]);                     \
      }                                                                                                             \
    }                                                                                                               \
  }
#endif
