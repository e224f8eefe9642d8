// Queries, keys and values on their way from a product to attention.
#include "rows.c"

// Rotary embedding (Su et al. 2021) of one head in place: x * cos + (x with its halves swapped) * sin.
static void rotate(float *x, const float *restrict cosines, const float *restrict sines, long head) {
  long half = head / 2;
  float *restrict lower = x, *restrict upper = x + half;
  for (long i = 0; i < half; i++) {
    float a = lower[i], b = upper[i];
    lower[i] = a * cosines[i] + b * sines[i];
    upper[i] = b * cosines[i + half] + a * sines[i + half];
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
    if (head < m->heads + m->kv_heads) {
      if (layer->head_norm) normalise(x, layer->head_norm + head * m->head, x, m->head, m->epsilon);
      rotate(x, layer->cos + position * m->head, layer->sin + position * m->head, m->head);
    }
    if (head >= m->heads) {
      long slot = s->slots[layer->group * s->rows + row], block = slot / m->page, place = slot % m->page;
      long index = head - m->heads;
      write_head(m, layer, (size_t)block * 2 * m->kv_heads + index, place, index < m->kv_heads, x);
    }
  }
}
