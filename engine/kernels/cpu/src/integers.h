// Products of whole numbers: weights of eight or four bits with inputs rounded to eight. 32 inputs of a row share a scale;
// weights of an output do, all of them in eight bits, 32 in four. Sums within 32 are exact, and added up in the order of the
// inputs: a row's result does not depend on the rows beside it, to the bit.
//
// A panel holds 16 outputs. Eight bits: [inputs / 4][16][4], each weight plus 128. Four bits: [inputs / 8][16][4] bytes,
// weights plus 8, of the first four inputs in the lower halves and of the next four in the upper. What was added is taken
// off again by the sum of the inputs. Scales are float32 [panels][16], or bfloat16 [panels][inputs / 32][16] in four bits.
#pragma once
#include "panel.h"

#define GROUP 32
#define WORDS (GROUP / 4)  // of four inputs each

INLINE int is_coded(int type) { return type == INT8 || type == INT4; }
INLINE size_t coded_panel_bytes(long inputs, int type) { return (size_t)inputs * PANEL / (type == INT4 ? 2 : 1); }

// Rows of whole numbers, tiled: words [inputs / 4][rows of the tile], then for each group a scale and the sum of its
// numbers, [groups][rows of the tile].
typedef struct {
  uint32_t *words;
  float *scales;
  int32_t *sums;
} Coded;

INLINE long coded_floats(long inputs) { return inputs / 4 + 2 * (inputs / GROUP); }  // that a row takes

INLINE Coded coded(const void *matrix, long rows, long inputs, long row) {
  uint32_t *words = (uint32_t *)matrix;
  float *scales = (float *)(words + rows * (inputs / 4));
  int32_t *sums = (int32_t *)(scales + rows * (inputs / GROUP));
  return (Coded){words + row * (inputs / 4), scales + row * (inputs / GROUP), sums + row * (inputs / GROUP)};
}

// A row of floats to its place. What is not finite makes its group's scale no number.
static void code_row(const float *x, void *matrix, long rows, long row, long inputs) {
  long tile = ((row + 1) * tiles(rows) - 1) / rows, start = tile_start(rows, tile);
  long step = tile_start(rows, tile + 1) - start, at = row - start;
  Coded to = coded(matrix, rows, inputs, start);
  for (long group = 0; group < inputs / GROUP; group++, x += GROUP) {
    vec most = {}, unsound = {};
    for (int i = 0; i < GROUP; i += LANES) {
      vec value = load(x + i);
      most = vmax(most, (vec)((ivec)value & 0x7fffffff));
      unsound += value * 0;
    }
    float top = largest(most), by = top > 1e-30f ? 127 / top : 0;
    ivec total = {};
    for (int i = 0; i < GROUP; i += LANES) {
      ivec code = (ivec)(load(x + i) * by + 12582912.0f) - 0x4b400000;  // 1.5 * 2^23 rounds to the nearest whole number
      total += code;
      int8_u bytes = __builtin_convertvector(code, int8_u);
      uint32_t words[LANES / 4];
      memcpy(words, &bytes, LANES);
      for (int n = 0; n < LANES / 4; n++) to.words[(group * WORDS + i / 4 + n) * step + at] = words[n];
    }
    int32_t sum_of_codes = 0;
    for (int i = 0; i < LANES; i++) sum_of_codes += total[i];
    to.scales[group * step + at] = top / 127 + sum(unsound);
    to.sums[group * step + at] = sum_of_codes;
  }
}

typedef struct {
  const char *weights;  // of the first panel
  const uint16_t *scales;  // of four bits
  size_t apart;  // bytes from panel to panel
  long groups;
} CodedPanels;

#if defined(__AVX512VNNI__)
#define CODED_TILE(R, P)                                                                                         \
  INLINE void coded_tile_##R##_##P(vec acc[R][P], Coded x, CodedPanels w, int type) {                            \
    for (long group = 0; group < w.groups; group++, x.words += WORDS * R, x.scales += R, x.sums += R) {          \
      __m512i part[R][P];                                                                                        \
      for (int i = 0; i < R; i++)                                                                                \
        for (int p = 0; p < P; p++) part[i][p] = _mm512_set1_epi32(x.sums[i] * (type == INT4 ? -8 : -128));       \
      if (type == INT4) {                                                                                        \
        for (int k = 0; k < WORDS; k += 2, w.weights += 64) {                                                    \
          __m512i low[P], high[P], mask = _mm512_set1_epi8(15);                                                  \
          for (int p = 0; p < P; p++) {                                                                          \
            __m512i both = _mm512_loadu_si512(w.weights + p * w.apart);                                          \
            low[p] = _mm512_and_si512(both, mask);                                                               \
            high[p] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);                                        \
          }                                                                                                      \
          for (int i = 0; i < R; i++) {                                                                          \
            __m512i first = _mm512_set1_epi32((int)x.words[k * R + i]);                                          \
            __m512i next = _mm512_set1_epi32((int)x.words[(k + 1) * R + i]);                                     \
            for (int p = 0; p < P; p++) part[i][p] = _mm512_dpbusd_epi32(part[i][p], low[p], first);             \
            for (int p = 0; p < P; p++) part[i][p] = _mm512_dpbusd_epi32(part[i][p], high[p], next);             \
          }                                                                                                      \
        }                                                                                                        \
      } else {                                                                                                   \
        for (int k = 0; k < WORDS; k++, w.weights += 64) {                                                       \
          __m512i numbers[P];                                                                                    \
          for (int p = 0; p < P; p++) numbers[p] = _mm512_loadu_si512(w.weights + p * w.apart);                  \
          for (int i = 0; i < R; i++) {                                                                          \
            __m512i input = _mm512_set1_epi32((int)x.words[k * R + i]);                                          \
            for (int p = 0; p < P; p++) part[i][p] = _mm512_dpbusd_epi32(part[i][p], numbers[p], input);         \
          }                                                                                                      \
        }                                                                                                        \
      }                                                                                                          \
      for (int p = 0; p < P; p++) {                                                                              \
        vec by = type == INT4 ? widen(w.scales + (p * w.groups + group) * PANEL) : splat(1);                     \
        for (int i = 0; i < R; i++) acc[i][p] += (vec)_mm512_cvtepi32_ps(part[i][p]) * (by * x.scales[i]);       \
      }                                                                                                          \
    }                                                                                                            \
  }
#define EACH_CODED_SHAPE(F)                                                                                        \
  F(1, 4) F(2, 4) F(3, 4) F(4, 2) F(5, 2) F(6, 2)                                                                  \
  F(1, 1) F(2, 1) F(3, 1) F(4, 1) F(5, 1) F(6, 1) F(7, 1) F(8, 1) F(9, 1) F(10, 1) F(11, 1) F(12, 1)
// As many panels at once as leave registers for the sums of floats beside those of whole numbers.
INLINE long coded_together(long rows) { return rows <= 3 ? 4 : rows <= 6 ? 2 : 1; }
EACH_CODED_SHAPE(CODED_TILE)
#else
// The same numbers, four products at a time from the bytes of each word.
INLINE void coded_products(ivec part[VECS], const char *w, int type, const uint32_t *x, long step) {
  for (int k = 0; k < WORDS; k++) {
    int half = type == INT4, upper = half && k % 2;
    const int8_t *inputs = (const int8_t *)(x + k * step);
    const char *from = w + (half ? k / 2 : k) * PANEL * 4;
    for (int v = 0; v < VECS; v++) {
      ivec words = *(const ivec_u *)(from + v * BYTES);
      for (int n = 0; n < 4; n++) {
        ivec weight = half ? (words >> (8 * n + 4 * upper)) & 15 : (words >> (8 * n)) & 255;
        part[v] += weight * inputs[n];
      }
    }
  }
}

INLINE void coded_row(vec acc[VECS], Coded x, long step, CodedPanels w, int type) {
  for (long group = 0; group < w.groups; group++) {
    ivec part[VECS];
    for (int v = 0; v < VECS; v++) part[v] = (ivec){} + x.sums[group * step] * (type == INT4 ? -8 : -128);
    coded_products(part, w.weights + group * coded_panel_bytes(GROUP, type), type, x.words + group * WORDS * step, step);
    for (int v = 0; v < VECS; v++) {
      vec by = type == INT4 ? widen(w.scales + group * PANEL + v * LANES) : splat(1);
      acc[v] += __builtin_convertvector(part[v], vec) * (by * x.scales[group * step]);
    }
  }
}
#endif
