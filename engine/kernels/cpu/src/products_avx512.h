// Products of whole numbers with the instruction that multiplies four bytes and adds them up (AVX-512 VNNI).
#pragma once
#include "integers.h"

// parts[R][P] += numbers of a group.
#define GROUP_PRODUCTS(R, P)                                                                                       \
  INLINE void group_products_##R##_##P(__m512i part[R][P], const uint32_t *words, const char *w, size_t apart, int type) { \
    __m512i mask = _mm512_set1_epi8(15);                                                                           \
    if (in_halves(type)) {                                                                                         \
      for (int k = 0; k < WORDS; k += 2, w += 64) {                                                                \
        __m512i low[P], high[P];                                                                                   \
        for (int p = 0; p < P; p++) {                                                                              \
          __m512i both = _mm512_loadu_si512(w + p * apart);                                                        \
          low[p] = _mm512_and_si512(both, mask);                                                                   \
          high[p] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);                                            \
        }                                                                                                          \
        for (int i = 0; i < R; i++) {                                                                              \
          __m512i first = _mm512_set1_epi32((int)words[PLACE_OF_WORD(R, k, i)]);                                   \
          __m512i next = _mm512_set1_epi32((int)words[PLACE_OF_WORD(R, k + 1, i)]);                                \
          for (int p = 0; p < P; p++) part[i][p] = _mm512_dpbusd_epi32(part[i][p], low[p], first);                 \
          for (int p = 0; p < P; p++) part[i][p] = _mm512_dpbusd_epi32(part[i][p], high[p], next);                 \
        }                                                                                                          \
      }                                                                                                            \
    } else {                                                                                                       \
      for (int k = 0; k < WORDS; k++, w += 64) {                                                                   \
        __m512i numbers[P];                                                                                        \
        for (int p = 0; p < P; p++) numbers[p] = _mm512_loadu_si512(w + p * apart);                                \
        for (int i = 0; i < R; i++) {                                                                              \
          __m512i input = _mm512_set1_epi32((int)words[PLACE_OF_WORD(R, k, i)]);                                   \
          for (int p = 0; p < P; p++) part[i][p] = _mm512_dpbusd_epi32(part[i][p], numbers[p], input);             \
        }                                                                                                          \
      }                                                                                                            \
    }                                                                                                              \
  }

// sums[P][R][16] = R rows, a whole tile, with P panels.
#define CODED_TILE(R, P)                                                                                           \
  GROUP_PRODUCTS(R, P)                                                                                             \
  INLINE void coded_tile_##R##_##P(float *sums, Coded x, CodedPanels w, int type) {                                \
    vec acc[R][P] = {};                                                                                            \
    for (long group = 0; group < w.groups; group++) {                                                              \
      Coded at = coded_from(x, STEP_OF(R), 0, group);                                                              \
      __m512i part[R][P];                                                                                          \
      for (int i = 0; i < R; i++)                                                                                  \
        for (int p = 0; p < P; p++) part[i][p] = _mm512_set1_epi32(at.sums[i] * -offset_of(type));                 \
      group_products_##R##_##P(part, at.words, w.weights + group * coded_panel_bytes(GROUP, type), w.apart, type); \
      for (int p = 0; p < P; p++) {                                                                                \
        const uint16_t *scales = w.scales + (p * w.groups + group) * scales_per_group(type);                       \
        vec by = is_grouped(type) ? widen_float16(scales) : type == INT4 ? widen(scales) : splat(1);               \
        for (int i = 0; i < R; i++) acc[i][p] += (vec)_mm512_cvtepi32_ps(part[i][p]) * (by * at.scales[i]);        \
        if (!is_grouped(type)) continue;                                                                           \
        vec minimums = widen_float16(scales + PANEL);                                                              \
        for (int i = 0; i < R; i++) acc[i][p] += minimums * at.totals[i];                                          \
      }                                                                                                            \
    }                                                                                                              \
    for (int p = 0; p < P; p++)                                                                                    \
      for (int i = 0; i < R; i++) store(sums + (p * R + i) * PANEL, acc[i][p]);                                    \
  }                                                                                                                \
  static void coded_tile_of_##R##_##P(float *sums, Coded x, CodedPanels w, int type) {                             \
    switch (type) {                                                                                                \
      case INT8: coded_tile_##R##_##P(sums, x, w, INT8); break;                                                    \
      case INT4: coded_tile_##R##_##P(sums, x, w, INT4); break;                                                    \
      case GROUPED8: coded_tile_##R##_##P(sums, x, w, GROUPED8); break;                                            \
      case GROUPED4: coded_tile_##R##_##P(sums, x, w, GROUPED4); break;                                            \
    }                                                                                                              \
  }

#define EACH_CODED_SHAPE(F)                                                                                        \
  F(1, 4) F(2, 4) F(3, 4) F(4, 2) F(5, 2) F(6, 2)                                                                  \
  F(1, 1) F(2, 1) F(3, 1) F(4, 1) F(5, 1) F(6, 1) F(7, 1) F(8, 1) F(9, 1) F(10, 1) F(11, 1) F(12, 1)
EACH_CODED_SHAPE(CODED_TILE)

// As many panels at once as leave registers for the sums of floats beside those of whole numbers.
INLINE long coded_together(long rows) { return rows <= 3 ? 4 : rows <= 6 ? 2 : 1; }

// sums[together][rows][16] = a tile of `rows` with `together` panels.
INLINE void multiply_coded_tile(float *sums, Coded x, long rows, CodedPanels w, int type, long together) {
#define TRY_CODED(R, P) if (rows == R && together == P) coded_tile_of_##R##_##P(sums, x, w, type);
  EACH_CODED_SHAPE(TRY_CODED)
}
