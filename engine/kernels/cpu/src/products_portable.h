// Products of whole numbers on any processor: four at a time from the bytes of each word.
#pragma once
#include "integers.h"

INLINE void group_products(ivec part[VECS], const char *w, int type, const uint32_t *words, long step) {
  for (int k = 0; k < WORDS; k++) {
    int halves = in_halves(type), upper = halves && k % 2;
    const int8_t *inputs = (const int8_t *)(words + k * step);
    const char *from = w + (halves ? k / 2 : k) * PANEL * 4;
    for (int v = 0; v < VECS; v++) {
      ivec numbers = *(const ivec_u *)(from + v * BYTES);
      for (int n = 0; n < 4; n++) {
        ivec number = halves ? (numbers >> (8 * n + 4 * upper)) & 15 : (numbers >> (8 * n)) & 255;
        part[v] += number * inputs[n];
      }
    }
  }
}

INLINE void coded_row(vec acc[VECS], Coded x, long step, CodedPanels w, int type) {
  for (long group = 0; group < w.groups; group++) {
    Coded at = coded_from(x, step, 0, group);
    const uint16_t *scales = w.scales + group * scales_per_group(type);
    ivec part[VECS];
    for (int v = 0; v < VECS; v++) part[v] = (ivec){} - at.sums[0] * offset_of(type);
    group_products(part, w.weights + group * coded_panel_bytes(GROUP, type), type, at.words, step);
    for (int v = 0; v < VECS; v++, scales += LANES) {
      vec by = is_grouped(type) ? widen_float16(scales) : type == INT4 ? widen(scales) : splat(1);
      acc[v] += __builtin_convertvector(part[v], vec) * (by * at.scales[0]);
      if (is_grouped(type)) acc[v] += widen_float16(scales + PANEL) * at.totals[0];
    }
  }
}

INLINE long coded_together(long rows) { return 1; }

// sums[rows][16] = a tile of `rows` with a panel.
INLINE void multiply_coded_tile(float *sums, Coded x, long rows, CodedPanels w, int type, long together) {
  for (long row = 0; row < rows; row++) {
    vec acc[VECS] = {};
    coded_row(acc, coded_from(x, rows, row, 0), rows, w, type);
    for (int v = 0; v < VECS; v++) store(sums + row * PANEL + v * LANES, acc[v]);
  }
}
