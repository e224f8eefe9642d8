// A few rows against one panel: the one loop in which nearly all time goes, for weights, keys and values alike.
//
// A panel holds 16 outputs: [inputs][16] in float32; in bfloat16 [inputs / 2][16][2], so that one load brings two inputs
// of every output, to be parted by a shift and a mask.
//
// Keys and values of one byte are laid out in the same two ways: in pairs where the processor multiplies pairs of bfloat16,
// else one by one.
//
// Every output adds up its products in the order of the inputs, whatever the number of rows: a row's result does not
// depend on the rows beside it, to the bit.
#pragma once
#include "formats.h"

#define PANEL 16
#define VECS (PANEL / LANES)  // vectors that one row of a panel fills
#if LANES == 16
#define MAX_ROWS 12
#else
#define MAX_ROWS 6
#endif

#define TILE_ROWS 16  // rows of a tile register
#define TILE_INPUTS 32  // bfloat16 of such a row

// Tiles hold whole blocks of rows.
INLINE long stored_rows(long rows) { return TILES ? (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS : rows; }

INLINE long whole_tiles(long inputs) { return (inputs + TILE_INPUTS - 1) / TILE_INPUTS * TILE_INPUTS; }

// With tiles, bfloat16 panels have zeros after the last input, so that a register is full.
INLINE size_t panel_bytes(long inputs, int type) {
  if (type == BF16) return (size_t)(TILES ? whole_tiles(inputs) : inputs) * PANEL * 2;
  return (size_t)inputs * PANEL * 4;
}

#define DOTS_OF_BYTES(FORMAT, R)                                                                                     \
  INLINE void dots_##FORMAT##_##R(vec acc[R][VECS], const float *x, long across, long along, const int8_t *w,       \
                                  long inputs) {                                                                    \
    for (long k = 0; k < inputs; k++, x += along)                                                                   \
      for (int v = 0; v < VECS; v++) {                                                                              \
        vec numbers = widen_##FORMAT(w + k * PANEL + v * LANES);                                                    \
        for (int i = 0; i < R; i++) acc[i][v] += numbers * x[i * across];                                           \
      }                                                                                                             \
  }

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
  }                                                                                                                 \
  DOTS_OF_BYTES(int8, R)                                                                                            \
  DOTS_OF_BYTES(fp8, R)
DOTS(1)
DOTS(2)
DOTS(3)
DOTS(4)
DOTS(5)
DOTS(6)
#if MAX_ROWS == 12
DOTS(7)
DOTS(8)
DOTS(9)
DOTS(10)
DOTS(11)
DOTS(12)
#endif

// CALL(R) for the number of rows at hand.
#if MAX_ROWS == 12
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
INLINE long tiles(long rows) { return (rows + MAX_ROWS - 1) / MAX_ROWS; }
INLINE long tile_start(long rows, long tile) { return rows * tile / tiles(rows); }

// Whether products with weights of `type` take their inputs as pairs of bfloat16.
INLINE int in_pairs(int type) { return PAIRS && type == BF16; }

// How the elements of a row lie: floats, or pairs of bfloat16, `step` words from one to the next; or pairs where a tile
// register takes them: 32 elements in a row of 64 bytes, 16 such rows after each other.
enum { IN_FLOATS, IN_PAIRS, IN_TILES };

// A row of a matrix that a product reads, to be written.
typedef struct {
  uint32_t *to;
  long step;
  int form;
  long width;  // of a row in tiles
} TiledRow;

// Where a matrix of pairs has tiles, a row of it: [rows / 16][inputs / 32][16][32] bfloat16, zeros after the last input.
INLINE TiledRow row_in_tiles(void *matrix, long row, long width) {
  uint32_t *block = (uint32_t *)matrix + row / TILE_ROWS * TILE_ROWS * whole_tiles(width) / 2;
  return (TiledRow){block + row % TILE_ROWS * TILE_INPUTS / 2, 1, IN_TILES, width};
}

INLINE TiledRow tiled_row(void *matrix, long rows, long row, long width, int pairs) {
  if (TILES && pairs) return row_in_tiles(matrix, row, width);
  long tile = ((row + 1) * tiles(rows) - 1) / rows, start = tile_start(rows, tile);
  long step = tile_start(rows, tile + 1) - start;
  uint32_t *to = (uint32_t *)matrix + start * (pairs ? width / 2 : width) + (row - start);
  return (TiledRow){to, step, pairs ? IN_PAIRS : IN_FLOATS, width};
}

// A row of a matrix that is not tiled.
INLINE TiledRow plain_row(void *matrix, long row, long width) {
  return (TiledRow){(uint32_t *)matrix + row * width, 1, IN_FLOATS, width};
}

INLINE void store_halves(uint32_t *to, vec value) {
#if HALVES
  _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
#else
  half_u halves = narrow(value);
  memcpy(to, &halves, sizeof(halves));
#endif
}

// Elements `at` to `at` + LANES - 1 of the row; `at` is a multiple of LANES.
INLINE void put(const TiledRow *row, long at, vec value) {
  if (row->form == IN_TILES) {
    uint32_t *to = row->to + at / TILE_INPUTS * TILE_ROWS * TILE_INPUTS / 2 + at % TILE_INPUTS / 2;
    store_halves(to, value);
    long end = at + LANES;
    if (end == row->width && end % TILE_INPUTS) memset(to + LANES / 2, 0, (TILE_INPUTS - end % TILE_INPUTS) * 2);
  } else if (row->form == IN_PAIRS) {
    uint32_t words[LANES / 2], *to = row->to + at / 2 * row->step;
    if (row->step == 1) {
      store_halves(to, value);
    } else {
      store_halves(words, value);
      for (int i = 0; i < LANES / 2; i++) to[i * row->step] = words[i];
    }
  } else {
    float *to = (float *)row->to + at * row->step;
    if (row->step == 1) store(to, value);
    else for (int i = 0; i < LANES; i++) to[i * row->step] = value[i];
  }
}

// `put` of two vectors, where a row in tiles is whole: `at` is a multiple of 2 * LANES.
INLINE void put_two(const TiledRow *row, long at, vec one, vec other) {
#if HALVES
  uint32_t *to = row->to + at / TILE_INPUTS * TILE_ROWS * TILE_INPUTS / 2;
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)other, (__m512)one));
#else
  put(row, at, one);
  put(row, at + LANES, other);
#endif
}

#if HALVES
// One load of 16 pairs, as bfloat16.
INLINE __m512bh pairs_bf16(const char *from) { return (__m512bh)_mm512_loadu_si512(from); }
INLINE __m512bh pairs_int8(const char *from) {
  __m256i bytes = _mm256_loadu_si256((const __m256i *)from);
  __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
  __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
  return _mm512_cvtne2ps_pbh(high, low);
}
INLINE __m512bh pairs_fp8(const char *from) {
  __m512i codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)from));
  __m512i magnitude = _mm512_and_si512(codes, _mm512_set1_epi16(0x7f));
  __m512i normal = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), _mm512_set1_epi16(120 << 7));
  // Multiples of 2^-9 below 2^-6, in bfloat16.
  static const uint16_t tiny[32] = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
  __mmask32 is_tiny = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(8));
  __m512i value = _mm512_mask_permutexvar_epi16(normal, is_tiny, magnitude, _mm512_loadu_si512(tiny));
  __m512i sign = _mm512_slli_epi16(_mm512_and_si512(codes, _mm512_set1_epi16(0x80)), 8);
  return (__m512bh)_mm512_or_si512(value, sign);
}
#define BYTES_OF_bf16 64
#define BYTES_OF_int8 32
#define BYTES_OF_fp8 32

// acc[R][P] += x[R][inputs] * P panels of weights that lie `apart` bytes from each other; x is a tile. The order in which
// an output adds up its products is that of the inputs, by pairs, for any R and P.
#define PAIR_DOTS(R, P)                                                                                             \
  INLINE void pair_dots_##R##_##P(__m512 acc[R][P], const uint32_t *x, const char *w, size_t apart, long inputs) {  \
    for (long k = 0; k < inputs; k += 2, x += R, w += BYTES_OF_bf16) {                                              \
      __m512bh numbers[P];                                                                                          \
      for (int p = 0; p < P; p++) numbers[p] = pairs_bf16(w + p * apart);                                           \
      for (int i = 0; i < R; i++) {                                                                                 \
        __m512bh input = (__m512bh)_mm512_set1_epi32((int)x[i]);                                                    \
        for (int p = 0; p < P; p++) acc[i][p] = _mm512_dpbf16_ps(acc[i][p], input, numbers[p]);                     \
      }                                                                                                             \
    }                                                                                                               \
  }

// The same with panels of keys or values, which lie anywhere, as many as registers hold beside the sums of R rows. Pair
// (i, k) of x is x[i * across + k]; what comes next lies `ahead` bytes from the panels.
#define PANELS_BESIDE(R) ((R) <= 6 ? 4 : 2)
#define PAIR_DOTS_OF_PANELS(FORMAT, R)                                                                              \
  INLINE void panel_dots_##FORMAT##_##R(vec acc[][R][VECS], const uint32_t *x, long across, const char *const *panels, \
                                        long inputs, long ahead) {                                                  \
    const char *w[PANELS_BESIDE(R)];                                                                                \
    for (int p = 0; p < PANELS_BESIDE(R); p++) w[p] = panels[p];                                                    \
    for (long k = 0; k < inputs / 2; k++) {                                                                         \
      __m512bh numbers[PANELS_BESIDE(R)];                                                                           \
      for (int p = 0; p < PANELS_BESIDE(R); p++) {                                                                  \
        numbers[p] = pairs_##FORMAT(w[p] + k * BYTES_OF_##FORMAT);                                                  \
        __builtin_prefetch(w[p] + k * BYTES_OF_##FORMAT + ahead);                                                   \
      }                                                                                                             \
      for (int i = 0; i < R; i++) {                                                                                 \
        __m512bh input = (__m512bh)_mm512_set1_epi32((int)x[i * across + k]);                                       \
        for (int p = 0; p < PANELS_BESIDE(R); p++) acc[p][i][0] = (vec)_mm512_dpbf16_ps((__m512)acc[p][i][0], input, numbers[p]); \
      }                                                                                                             \
    }                                                                                                               \
  }
#endif
