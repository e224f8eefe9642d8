// Products of whole numbers in registers of 256 bits.
//
// Without an instruction that adds up four products of bytes, pairs of them are added up in 16 bits: 32 numbers of four bits
// times inputs of eight fit in there, 16 * 2 * 15 * 127 in each half. Numbers of eight bits are multiplied as two of four.
#pragma once
#include "integers.h"

#define HALF_PANEL 8  // outputs of a register

#if defined(__AVXVNNI__)
#define WHOLE_BYTES 1  // are multiplied at once
INLINE __m256i plus_products(__m256i sums, __m256i numbers, __m256i inputs) { return _mm256_dpbusd_avx_epi32(sums, numbers, inputs); }
INLINE __m256i widened_sums(__m256i sums, int by) { return by == 1 ? sums : _mm256_mullo_epi32(sums, _mm256_set1_epi32(by)); }
#else
#define WHOLE_BYTES 0
INLINE __m256i plus_products(__m256i sums, __m256i numbers, __m256i inputs) {
  sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(numbers, inputs));
  __asm__("" : "+x"(sums));  // else a compiler puts sums off until there are no registers left for what they are made of
  return sums;
}
INLINE __m256i widened_sums(__m256i sums, int by) { return _mm256_madd_epi16(sums, _mm256_set1_epi16((short)by)); }
#endif

INLINE __m256 eight_float16(const uint16_t *from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }
INLINE __m256 eight_bfloat16(const uint16_t *from) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16));
}
INLINE __m256i broadcast(uint32_t word) { return _mm256_set1_epi32((int)word); }

// part[R][V] = sums of products of a group: R rows of a tile of `step` with V halves of a panel.
#define GROUP_PRODUCTS(R, V)                                                                                       \
  INLINE void group_products_##R##_##V(__m256i part[R][V], const uint32_t *words, long step, const char *w, int type) { \
    __m256i upper_part[R][V], mask = _mm256_set1_epi8(15);                                                         \
    for (int i = 0; i < R; i++)                                                                                    \
      for (int v = 0; v < V; v++) part[i][v] = upper_part[i][v] = _mm256_setzero_si256();                          \
    for (int k = 0; k < WORDS; k += in_halves(type) ? 2 : 1, w += 4 * PANEL) {                                     \
      __m256i lower[V], upper[V];                                                                                  \
      for (int v = 0; v < V; v++) {                                                                                \
        lower[v] = upper[v] = _mm256_loadu_si256((const __m256i *)(w + v * 4 * HALF_PANEL));                       \
        if (!in_halves(type) && WHOLE_BYTES) continue;                                                             \
        lower[v] = _mm256_and_si256(lower[v], mask);                                                               \
        upper[v] = _mm256_and_si256(_mm256_srli_epi16(upper[v], 4), mask);                                         \
      }                                                                                                            \
      for (int i = 0; i < R; i++) {                                                                                \
        __m256i first = broadcast(words[k * step + i]);                                                            \
        for (int v = 0; v < V; v++) part[i][v] = plus_products(part[i][v], lower[v], first);                       \
        if (in_halves(type)) {                                                                                     \
          __m256i next = broadcast(words[(k + 1) * step + i]);                                                     \
          for (int v = 0; v < V; v++) part[i][v] = plus_products(part[i][v], upper[v], next);                      \
        } else if (!WHOLE_BYTES) {                                                                                 \
          for (int v = 0; v < V; v++) upper_part[i][v] = plus_products(upper_part[i][v], upper[v], first);         \
        }                                                                                                          \
      }                                                                                                            \
    }                                                                                                              \
    for (int i = 0; i < R; i++)                                                                                    \
      for (int v = 0; v < V; v++) {                                                                                \
        part[i][v] = widened_sums(part[i][v], 1);                                                                  \
        if (!in_halves(type) && !WHOLE_BYTES) part[i][v] = _mm256_add_epi32(part[i][v], widened_sums(upper_part[i][v], 16)); \
      }                                                                                                            \
  }

// sums[R][16] = R rows of a tile of `step` with V halves of a panel.
#define CODED_TILE(R, V)                                                                                           \
  GROUP_PRODUCTS(R, V)                                                                                             \
  INLINE void coded_tile_##R##_##V(float *sums, Coded x, long step, CodedPanels w, int type) {                     \
    __m256 acc[R][V];                                                                                              \
    for (int i = 0; i < R; i++)                                                                                    \
      for (int v = 0; v < V; v++) acc[i][v] = _mm256_setzero_ps();                                                 \
    for (long group = 0; group < w.groups; group++) {                                                              \
      Coded at = coded_from(x, step, 0, group);                                                                    \
      __m256i part[R][V];                                                                                          \
      group_products_##R##_##V(part, at.words, step, w.weights + group * coded_panel_bytes(GROUP, type), type);    \
      for (int v = 0; v < V; v++) {                                                                                \
        const uint16_t *scales = w.scales + group * scales_per_group(type) + v * HALF_PANEL;                       \
        __m256 by = is_grouped(type) ? eight_float16(scales) : type == INT4 ? eight_bfloat16(scales) : _mm256_set1_ps(1); \
        for (int i = 0; i < R; i++) {                                                                              \
          __m256i whole = part[i][v];                                                                              \
          if (!is_grouped(type)) whole = _mm256_sub_epi32(whole, _mm256_set1_epi32(at.sums[i] * offset_of(type))); \
          __m256 scale = _mm256_mul_ps(by, _mm256_set1_ps(at.scales[i]));                                          \
          acc[i][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, acc[i][v]);                                \
        }                                                                                                          \
        if (!is_grouped(type)) continue;                                                                           \
        __m256 minimums = eight_float16(scales + PANEL);                                                           \
        for (int i = 0; i < R; i++) acc[i][v] = _mm256_fmadd_ps(minimums, _mm256_set1_ps(at.totals[i]), acc[i][v]); \
      }                                                                                                            \
    }                                                                                                              \
    for (int i = 0; i < R; i++)                                                                                    \
      for (int v = 0; v < V; v++) _mm256_storeu_ps(sums + i * PANEL + v * HALF_PANEL, acc[i][v]);                  \
  }

// As many sums as there are registers for: those of bytes take two where they are multiplied as halves.
#define EACH_SHAPE_OF_HALVES(F) F(1, 2) F(2, 2) F(3, 2) F(4, 2) F(5, 1) F(6, 1)
#define EACH_SHAPE_OF_BYTES(F) F(1, 2) F(2, 2) F(3, 1) F(4, 1) F(5, 1) F(6, 1)
#define MAX_CODED_ROWS 6
EACH_SHAPE_OF_HALVES(CODED_TILE)
CODED_TILE(3, 1)
CODED_TILE(4, 1)

#define TILE_OF_HALVES(R, V)                                                                                       \
  static void tile_of_halves_##R##_##V(float *sums, Coded x, long step, CodedPanels w, int type) {                 \
    if (type == INT4) coded_tile_##R##_##V(sums, x, step, w, INT4);                                                \
    else coded_tile_##R##_##V(sums, x, step, w, GROUPED4);                                                         \
  }
#define TILE_OF_BYTES(R, V)                                                                                        \
  static void tile_of_bytes_##R##_##V(float *sums, Coded x, long step, CodedPanels w, int type) {                  \
    if (type == INT8) coded_tile_##R##_##V(sums, x, step, w, INT8);                                                \
    else coded_tile_##R##_##V(sums, x, step, w, GROUPED8);                                                         \
  }
EACH_SHAPE_OF_HALVES(TILE_OF_HALVES)
EACH_SHAPE_OF_BYTES(TILE_OF_BYTES)

INLINE long coded_together(long rows) { return 1; }

// Gives how many halves of the panel were multiplied.
INLINE int multiply_halves(float *sums, Coded x, long rows, long step, CodedPanels w, int type) {
#define TRY_HALVES(R, V) if (rows == R) { tile_of_halves_##R##_##V(sums, x, step, w, type); return V; }
#define TRY_BYTES(R, V) if (rows == R) { tile_of_bytes_##R##_##V(sums, x, step, w, type); return V; }
  if (in_halves(type)) { EACH_SHAPE_OF_HALVES(TRY_HALVES) } else { EACH_SHAPE_OF_BYTES(TRY_BYTES) }
  return 2;
}

// sums[rows][16] = a tile of `rows` with a panel.
INLINE void multiply_coded_tile(float *sums, Coded x, long rows, CodedPanels w, int type, long together) {
  for (long row = 0, count; row < rows; row += count) {
    count = rows - row > MAX_CODED_ROWS ? MAX_CODED_ROWS : rows - row;
    Coded some = coded_from(x, rows, row, 0);
    CodedPanels part = w;
    for (int half = 0; half < 2;) {
      int done = multiply_halves(sums + row * PANEL + half * HALF_PANEL, some, count, rows, part, type);
      half += done, part.weights += done * 4 * HALF_PANEL, part.scales += done * HALF_PANEL;
    }
  }
}
