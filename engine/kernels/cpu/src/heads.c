// Queries, keys and values on their way from a product to attention.
#include "rows.c"

// Norms and rotates a query or key in place, with the rotary embedding (Su et al. 2021): x * cos + (x with its halves swapped)
// * sin, where the cosines of both halves are equal and the sines opposite.
static void turn_head(const Model *m, const Layer *layer, long head, long position, float *x) {
  long size = m->head, half = size / 2, i = 0;
  const float *weight = layer->head_norm ? layer->head_norm + head * size : NULL;
  const float *cosines = layer->cos + position * size, *sines = layer->sin + position * size + half;
  float *lower = x, *upper = x + half, by = weight ? scale_of(x, size, m->epsilon) : 1;
  for (; i + LANES <= half; i += LANES) {
    vec a = load(lower + i), b = load(upper + i), c = load(cosines + i), s = load(sines + i);
    if (weight) a = a * by * load(weight + i), b = b * by * load(weight + half + i);
    store(lower + i, a * c - b * s);
    store(upper + i, b * c + a * s);
  }
  for (; i < half; i++) {
    float a = lower[i], b = upper[i];
    if (weight) a = a * by * weight[i], b = b * by * weight[half + i];
    lower[i] = a * cosines[i] - b * sines[i];
    upper[i] = b * cosines[i] + a * sines[i];
  }
}

// Number `index` of a page, multiplied by `by`.
INLINE void write_number(char *page, int type, long index, float value, float by) {
  switch (type) {
    case F32: ((float *)page)[index] = value; break;
    case BF16: ((uint16_t *)page)[index] = narrow1(value); break;
    case INT8: ((int8_t *)page)[index] = to_int8(value * by); break;
    case FP8: ((int8_t *)page)[index] = to_fp8(value * by); break;
  }
}

// Place (input, output) in panels of `inputs` rows.
INLINE long place_in(int pairs, long inputs, long input, long output) {
  long panel = output / PANEL, lane = output % PANEL;
  long within = pairs ? input / 2 * 2 * PANEL + lane * 2 + input % 2 : input * PANEL + lane;
  return panel * inputs * PANEL + within;
}

// A token's key, one lane of panels over tokens, in whole vectors; 0 if the numbers need another way.
INLINE int write_key(char *page, int type, int pairs, long head, long place, const float *x) {
  if (type != F32 && !(type == BF16 && PAIRS)) return 0;
  long words = pairs ? head / 2 : head;
  TiledRow lane = {(uint32_t *)page + place / PANEL * words * PANEL + place % PANEL, PANEL, pairs ? IN_PAIRS : IN_FLOATS, head};
  for (long d = 0; d < head; d += LANES) put(&lane, d, load(x + d));
  return 1;
}

// A token's value, one input of panels over channels, likewise.
INLINE int write_value(char *page, int type, long tokens, long head, long place, const float *x) {
  if (type == F32) {
    for (long d = 0; d < head; d += LANES) store((float *)page + place_in(0, tokens, place, d), load(x + d));
    return 1;
  }
#if HALVES
  if (type == BF16) {
    __mmask32 half = place % 2 ? 0xaaaaaaaa : 0x55555555;
    for (long d = 0; d < head; d += LANES) {
      __m512i words = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)load(x + d)));
      if (place % 2) words = _mm512_slli_epi32(words, 16);
      _mm512_mask_storeu_epi16((uint16_t *)page + place_in(1, tokens, place / 2 * 2, d), half, words);
    }
    return 1;
  }
#endif
  return 0;
}

#if TILES && HALVES
// Sixteen rows of sixteen words, columns first.
INLINE void transpose_words(__m512i rows[16]) {
  __m512i pairs[16], fours[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
      fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
    }
  // fours[4 * i + c]: in each quarter q, column 4 * q + c of rows 4 * i to 4 * i + 3.
  for (int c = 0; c < 4; c++) {
    __m512i low = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0x88), high = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0x88);
    rows[c] = _mm512_shuffle_i32x4(low, high, 0x88);
    rows[8 + c] = _mm512_shuffle_i32x4(low, high, 0xdd);
    low = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0xdd), high = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0xdd);
    rows[4 + c] = _mm512_shuffle_i32x4(low, high, 0x88);
    rows[12 + c] = _mm512_shuffle_i32x4(low, high, 0xdd);
  }
}

// Keys of 16 tokens, all lanes of a panel over tokens.
static void write_panel_of_keys(char *panel, long head, const float *x, long width) {
  for (long d = 0; d < head; d += 2 * LANES) {
    __m512i words[PANEL];
    for (int i = 0; i < PANEL; i++)
      words[i] = (__m512i)_mm512_cvtne2ps_pbh((__m512)load(x + i * width + d + LANES), (__m512)load(x + i * width + d));
    transpose_words(words);
    for (int i = 0; i < PANEL; i++) _mm512_storeu_si512(panel + (d / 2 + i) * LINE, words[i]);
  }
}

// Values of 16 tokens, from the one at `place` on: inputs of panels over channels.
static void write_panel_of_values(char *page, long tokens, long head, long place, const float *x, long width) {
  const __m512i beside = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (long d = 0; d < head; d += LANES)
    for (long i = 0; i < PANEL; i += 2) {
      __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)load(x + (i + 1) * width + d), (__m512)load(x + i * width + d));
      _mm512_storeu_si512((uint16_t *)page + place_in(1, tokens, place + i, d), _mm512_permutexvar_epi16(beside, both));
    }
}
#endif

// A head's key or value to its page.
static void write_head(const Model *m, const Layer *layer, size_t page, long place, int is_key, const float *x) {
  int type = m->cache_type, pairs = lies_in_pairs(type, in_pairs(m->type));
  char *to = layer->cache + page * m->page * m->head * width_of(type);
  if (is_key ? write_key(to, type, pairs, m->head, place, x) : write_value(to, type, m->page, m->head, place, x)) return;
  float by = 1;
  if (scaled(type)) {
    uint16_t scale = scale_for(x, m->head, type);
    layer->scales[page * m->page + place] = scale;
    by = scale ? 1 / widen1(scale) : 0;
  }
  if (is_key) for (long d = 0; d < m->head; d++) write_number(to, type, place_in(pairs, m->head, d, place), x[d], by);
  else for (long d = 0; d < m->head; d++) write_number(to, type, place_in(pairs, m->page, place, d), x[d], by);
}

// Norms and rotates queries and keys in place, and writes keys and values to their pages.
static void prepare_heads(const Model *m, const Layer *layer, const Step *s, float *qkv, const Part *part) {
  long from = part->first, to = part->end, all = m->heads + 2 * m->kv_heads;
  if (to) from *= all, to *= all;
  else share(s->rows * all, part->me, part->threads, &from, &to);
  for (long piece = from; piece < to; piece++) {
    long row = piece / all, head = piece % all, position = s->positions[row];
    float *x = qkv + piece * m->head;
    if (head < m->heads + m->kv_heads) turn_head(m, layer, head, position, x);
    if (head >= m->heads) {
      long slot = s->slots[layer->group * s->rows + row], block = slot / m->page, place = slot % m->page;
      long index = head - m->heads;
      write_head(m, layer, (size_t)block * 2 * m->kv_heads + index, place, index < m->kv_heads, x);
    }
  }
}

#if TILES
// Whether 16 rows from `row` on fill a panel of a page.
INLINE int fill_panel(const int64_t *slots, long row, long end) {
  if (row + PANEL > end || slots[row] % PANEL) return 0;
  for (long i = 1; i < PANEL; i++)
    if (slots[row + i] != slots[row] + i) return 0;
  return 1;
}

// Keys or values `x` [end - row][head] of rows to their pages.
static void write_rows(const Model *m, const Layer *layer, const int64_t *slots, long index, long row, long end, const float *x) {
  int is_key = index < m->kv_heads;
  for (long wrote; row < end; row += wrote, x += wrote * m->head) {
    long block = slots[row] / m->page, place = slots[row] % m->page;
    size_t page = (size_t)block * 2 * m->kv_heads + index;
    wrote = 1;
#if HALVES
    if (m->cache_type == BF16 && m->head % (2 * LANES) == 0 && fill_panel(slots, row, end)) {
      char *to = layer->cache + page * m->page * m->head * 2;
      wrote = PANEL;
      if (is_key) write_panel_of_keys(to + place * m->head * 2, m->head, x, m->head);
      else write_panel_of_values(to, m->page, m->head, place, x, m->head);
      continue;
    }
#endif
    write_head(m, layer, page, place, is_key, x);
  }
}

INLINE void write_query(const float *x, uint16_t *to, long head) {
  for (long d = 0; d < head; d += LANES) store_halves((uint32_t *)(to + d), load(x + d));
}

// Queries, keys and values of the thread's own rows: a head after the other is multiplied, normed, rotated and written
// while it is in the second cache. `queries` are [rows][heads][head]; `room` takes [rows][head] floats in between.
static void make_heads(const Model *m, const Layer *layer, const Step *s, const float *x, uint16_t *queries, float *room, const Part *part) {
  long all = m->heads + 2 * m->kv_heads, panels = m->head / PANEL, most = rows_at_once(m->hidden);
  const int64_t *slots = s->slots + layer->group * s->rows;
  for (long row = part->first, end; row < part->end; row = end) {
    end = least(row + most, part->end);
    for (long head = 0; head < all; head++) {
      int is_query = head < m->heads;
      Window window = {row, head * m->head, m->head};
      Product p = {.linear = &layer->qkv, .x = x, .y = room, .rows = part->rows, .first = row, .end = end, .window = &window};
      multiply_tiles(&p, head * panels, (head + 1) * panels);
      if (head < m->heads + m->kv_heads)
        for (long i = row; i < end; i++) turn_head(m, layer, head, s->positions[i], room + (i - row) * m->head);
      if (!is_query) write_rows(m, layer, slots, head - m->heads, row, end, room);
      else for (long i = row; i < end; i++) write_query(room + (i - row) * m->head, queries + (i * m->heads + head) * m->head, m->head);
    }
  }
}
#endif
