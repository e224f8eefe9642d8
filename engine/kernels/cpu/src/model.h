// A decoder, a step of it, and what the step needs beside.
#pragma once
#include "screen.c"

typedef struct {
  // Weights of norms [hidden]; null where the family has none.
  const float *before_attention, *after_attention, *before_mlp, *after_mlp;
  const float *head_norm;  // [heads + kv_heads][head] or null
  Linear qkv, output, gate_up, down;
  const float *cos, *sin;  // [context][head]: the sines of the first half negative
  char *cache;
  uint16_t *scales;  // of the cache's numbers; null where they have none
  long group;  // whose spans and slots it has
  long window;
  float scale;  // of the scores
} Layer;

typedef struct {
  const Layer *layers;
  long count;
  const void *embedding;  // [vocab][hidden], not packed; null where tokens are looked up in ``head_weights``
  const float *final_norm;
  Linear head_weights;  // hidden to vocab
  long hidden, heads, kv_heads, head, inner, page;
  float epsilon, embedding_scale, score_cap, logit_cap;  // caps: 0 for none
  int type;  // of the embedding
  int cache_type;
  int gelu;  // tanh-approximated GELU instead of SiLU
  int coded;  // whether all products are of whole numbers
  Screen screen;
} Model;

typedef struct {
  const int64_t *tokens, *positions;  // [rows]
  const int64_t *slots;  // [groups][rows]: block * page + place in it
  long rows;
  const Span *spans;  // [groups][spans_count]: alike, but for the tables
  long spans_count;
  const int64_t *wanted;  // rows whose logits are wanted
  long wanted_count;
  float *logits;  // [wanted][vocab]; where ``screened`` no more than room, [wanted][panels]
  uint8_t *sound;  // [rows]: whether all numbers of a row were finite
  int64_t *largest;  // [wanted]: of each row the largest logit's place, -1 where that is no finite number; or null
  int screened;  // whether nothing but that is wanted, and is to be found by the screen
  _Atomic long multiplied;  // panels of the output layer that it took all the same
} Step;

// What a step needs beside weights and cache, in this order.
typedef struct {
  float *stream;  // [rows][hidden]
  float *normed;  // [rows][hidden], tiled where a product reads it
  float *qkv;  // [rows][(heads + 2 kv_heads) * head]
  float *mixed;  // [rows][heads * head], tiled
  float *gates;  // [rows][2 * inner]; where threads have rows of their own, [rows][hidden] of anything
  float *inner;  // [rows][inner], tiled
  float *codes;  // [rows][coded_floats]: what a product of whole numbers reads, in place of `normed`, `mixed` and `inner`
  Seen *seen;  // [rows]
} Scratch;

INLINE long floats_of_gates(const Model *m) { return m->hidden > 2 * m->inner ? m->hidden : 2 * m->inner; }

INLINE long floats_of_codes(const Model *m) {
  long wide = m->heads * m->head, most = m->hidden > wide ? m->hidden : wide;
  if (m->screen.numbers.weights) return coded_floats(m->hidden);
  return m->coded ? coded_floats(most > m->inner ? most : m->inner) : 0;
}

// Whether bfloat16 panels are to have whole tile registers of inputs.
EXPORT int manta_tiles(void) { return TILES; }

EXPORT long manta_scratch_floats(const Model *m, long rows) {
  long head = m->head;
  long row = 2 * m->hidden + (m->heads + 2 * m->kv_heads) * head + m->heads * head + m->inner + floats_of_gates(m) + floats_of_codes(m) + SEEN_FLOATS;
  return stored_rows(rows) * row;
}
