// Products of whole numbers: weights of eight or four bits with inputs rounded to eight. 32 inputs of a row share a scale.
// Sums within 32 are exact, and added up in the order of the inputs: a row's result does not depend on the rows beside it,
// to the bit.
//
// A panel holds 16 outputs. Eight bits: [inputs / 4][16][4]. Four bits: [inputs / 8][16][4] bytes, of the first four inputs
// in the lower halves and of the next four in the upper. All numbers are unsigned.
//
// INT8: weights plus 128, scales float32 [panels][16]. INT4: weights plus 8, scales bfloat16 [panels][inputs / 32][16]. What
// was added is taken off again by the sum of the inputs.
// GROUPED8, GROUPED4: a weight is number * scale + minimum. 32 inputs of an output share both, which are float16
// [panels][inputs / 32][2][16], scales before minimums. A minimum is multiplied by the sum of the inputs.
#pragma once
#include "panel.h"

#define GROUP 32
#define WORDS (GROUP / 4)  // of four inputs each

INLINE int is_grouped(int type) { return type == GROUPED4 || type == GROUPED8; }
INLINE int is_coded(int type) { return type == INT8 || type == INT4 || is_grouped(type); }
INLINE int in_halves(int type) { return type == INT4 || type == GROUPED4; }  // of bytes
INLINE int offset_of(int type) { return type == INT8 ? 128 : type == INT4 ? 8 : 0; }
INLINE size_t coded_panel_bytes(long inputs, int type) { return (size_t)inputs * PANEL / (in_halves(type) ? 2 : 1); }
// Scales, and minimums, of 16 bits for a group of a panel.
INLINE long scales_per_group(int type) { return is_grouped(type) ? 2 * PANEL : type == INT4 ? PANEL : 0; }

// Rows of whole numbers, tiled: words [inputs / 4][rows of the tile], then for each group a scale, the sum of its numbers,
// and the product of the two, [groups][rows of the tile]. With tile registers, words lie as those take them: 16 rows to a
// tile, [groups][16][8].
typedef struct {
  uint32_t *words;
  float *scales;
  int32_t *sums;
  float *totals;
} Coded;

INLINE long coded_floats(long inputs) { return inputs / 4 + 3 * (inputs / GROUP); }  // that a row takes

#if TILES
#define STEP_OF(rows) TILE_ROWS  // of a tile of `rows`
#define PLACE_OF_WORD(step, word, row) ((word) / WORDS * WORDS * TILE_ROWS + (row) * WORDS + (word) % WORDS)
INLINE long coded_tiles(long rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }
INLINE long coded_tile_start(long rows, long tile) { return least(rows, tile * TILE_ROWS); }
#else
#define STEP_OF(rows) (rows)
#define PLACE_OF_WORD(step, word, row) ((word) * (step) + (row))
INLINE long coded_tiles(long rows) { return tiles(rows); }
INLINE long coded_tile_start(long rows, long tile) { return tile_start(rows, tile); }
#endif

INLINE Coded coded(const void *matrix, long rows, long inputs, long row) {
  rows = stored_rows(rows);
  long groups = inputs / GROUP;
  uint32_t *words = (uint32_t *)matrix;
  float *scales = (float *)(words + rows * (inputs / 4));
  int32_t *sums = (int32_t *)(scales + rows * groups);
  float *totals = (float *)(sums + rows * groups);
  return (Coded){words + row * (inputs / 4), scales + row * groups, sums + row * groups, totals + row * groups};
}

// Some rows of a tile that has `step`, from group `group` on.
INLINE Coded coded_from(Coded x, long step, long row, long group) {
  long at = group * step + row;
  return (Coded){x.words + PLACE_OF_WORD(step, group * WORDS, row), x.scales + at, x.sums + at, x.totals + at};
}

// Numbers of one byte, four in a word.
INLINE void narrow_codes(const ivec codes[GROUP / LANES], uint32_t words[WORDS]) {
#if LANES == 8 && defined(__AVX2__)
  __m256i first = _mm256_packs_epi32((__m256i)codes[0], (__m256i)codes[1]);  // halves of 128 bits by themselves
  __m256i last = _mm256_packs_epi32((__m256i)codes[2], (__m256i)codes[3]);
  __m256i bytes = _mm256_packs_epi16(first, last), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256((__m256i *)words, _mm256_permutevar8x32_epi32(bytes, order));
#else
  for (int i = 0; i < GROUP / LANES; i++) {
    int8_u bytes = __builtin_convertvector(codes[i], int8_u);
    memcpy(words + i * LANES / 4, &bytes, LANES);
  }
#endif
}

// A row of floats to its place. What is not finite makes its group's scale no number.
static void code_row(const float *x, void *matrix, long rows, long row, long inputs) {
  long tile = TILES ? row / TILE_ROWS : ((row + 1) * tiles(rows) - 1) / rows, start = coded_tile_start(rows, tile);
  long step = STEP_OF(tile_start(rows, tile + 1) - start), at = row - start;
  Coded to = coded(matrix, rows, inputs, start);
  for (long group = 0; group < inputs / GROUP; group++, x += GROUP) {
    ivec most = {};  // of the magnitudes, whose order is that of their bits; what is no number is above infinity
    for (int i = 0; i < GROUP; i += LANES) most = higher(most, (ivec)load(x + i) & 0x7fffffff);
    float top = float_of(highest(most)), by = top > 1e-30f ? 127 / top : 0;
    ivec codes[GROUP / LANES], total = {};
    for (int i = 0; i < GROUP / LANES; i++) {
      codes[i] = (ivec)(load(x + i * LANES) * by + 12582912.0f) - 0x4b400000;  // 1.5 * 2^23 rounds to the nearest whole number
      total += codes[i];
    }
    uint32_t words[WORDS];
    narrow_codes(codes, words);
    for (int n = 0; n < WORDS; n++) to.words[PLACE_OF_WORD(step, group * WORDS + n, at)] = words[n];
    float scale = top <= FLT_MAX ? top / 127 : NAN;
    int32_t sum_of_codes = added_up(total);
    to.scales[group * step + at] = scale;
    to.sums[group * step + at] = sum_of_codes;
    to.totals[group * step + at] = scale * (float)sum_of_codes;
  }
}

typedef struct {
  const char *weights;  // of the first panel
  const uint16_t *scales;  // of groups
  size_t apart;  // bytes from panel to panel
  long groups;
} CodedPanels;

#define MAX_SUMS 12  // rows times panels that are multiplied at once
