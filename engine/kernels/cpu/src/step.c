// One step of a decoder: from token ids to logits, in one call, threads meeting at barriers.
//
// Activations are float32, but for inputs of products: bfloat16 with such weights, where the processor multiplies pairs of
// them, and whole numbers with weights that are. Keys and values are float32, bfloat16 or one byte each.
#include "pool.h"

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
  const void *embedding;  // [vocab][hidden], not packed
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
  float *logits;  // [wanted][vocab]
  uint8_t *sound;  // [rows]: whether all numbers of a row were finite
  int screened;  // whether of each row the largest logit alone is wanted; only with a screen
  _Atomic long multiplied;  // panels of the output layer that it took all the same
} Step;

// What a step needs beside weights and cache: floats per row, in this order.
typedef struct {
  float *stream;  // [rows][hidden]
  float *normed;  // [rows][hidden], tiled where a product reads it
  float *qkv;  // [rows][(heads + 2 kv_heads) * head]
  float *mixed;  // [rows][heads * head], tiled
  float *gates;  // [rows][2 * inner]
  float *inner;  // [rows][inner], tiled
  float *codes;  // [rows][coded_floats]: what a product of whole numbers reads, in place of `normed`, `mixed` and `inner`
  Seen *seen;  // [rows]
} Scratch;

INLINE long floats_of_codes(const Model *m) {
  long wide = m->heads * m->head, most = m->hidden > wide ? m->hidden : wide;
  if (m->screen.numbers.weights) return coded_floats(m->hidden);
  return m->coded ? coded_floats(most > m->inner ? most : m->inner) : 0;
}

EXPORT long manta_scratch_floats(const Model *m) {
  long head = m->head;
  return 2 * m->hidden + (m->heads + 2 * m->kv_heads) * head + m->heads * head + 3 * m->inner + floats_of_codes(m) + SEEN_FLOATS;
}

// One over the root mean square (Zhang and Sennrich 2019).
INLINE float scale_of(const float *x, long size, float epsilon) {
  vec squares = {};
  for (long i = 0; i < size; i += LANES) squares += load(x + i) * load(x + i);
  return 1 / sqrtf(sum(squares) / size + epsilon);
}

static void normalise(const float *x, const float *weight, float *y, long size, float epsilon) {
  float by = scale_of(x, size, epsilon);
  for (long i = 0; i < size; i += LANES) store(y + i, load(x + i) * by * load(weight + i));
}

INLINE void share(long count, int me, int threads, long *from, long *to) {
  *from = count * me / threads, *to = count * (me + 1) / threads;
}

// A row on its way to a product: tiled at once, or first as a whole in `plain`, to be coded.
INLINE TiledRow row_of_product(const Model *m, float *plain, float *matrix, long rows, long row, long width) {
  return m->coded ? plain_row(plain, 0, width) : tiled_row(matrix, rows, row, width, in_pairs(m->type));
}

// Into a matrix that a product reads; without weights the row as it is.
static void normalise_row(const Model *m, const float *x, const float *weight, float *y, long rows, long row) {
  float plain[m->coded ? m->hidden : 1];
  TiledRow to = row_of_product(m, plain, y, rows, row, m->hidden);
  float by = weight ? scale_of(x, m->hidden, m->epsilon) : 1;
  for (long i = 0; i < m->hidden; i += LANES) put(&to, i, weight ? load(x + i) * by * load(weight + i) : load(x + i));
  if (m->coded) code_row(plain, y, rows, row, m->hidden);
}

static void normalise_rows(const Model *m, const float *x, const float *weight, float *y, long rows, int me, int threads) {
  long from, to;
  share(rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) normalise_row(m, x + row * m->hidden, weight, y, rows, row);
}

// x + normalised y, for the families that norm what a block adds.
static void add_normalised(float *x, const float *y, const float *weight, long rows, long size, float epsilon, int me, int threads) {
  long from, to;
  share(rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) {
    const float *in = y + row * size;
    float by = scale_of(in, size, epsilon);
    for (long i = 0; i < size; i += LANES)
      store(x + row * size + i, load(x + row * size + i) + load(in + i) * by * load(weight + i));
  }
}

static void embed(const Model *m, const Step *s, float *stream, int me, int threads) {
  long from, to;
  share(s->rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) {
    size_t at = (size_t)s->tokens[row] * m->hidden;
    for (long i = 0; i < m->hidden; i += LANES) {
      vec value = m->type == BF16 ? widen((const uint16_t *)m->embedding + at + i) : load((const float *)m->embedding + at + i);
      store(stream + row * m->hidden + i, value * m->embedding_scale);
    }
  }
}

// Rotary embedding (Su et al. 2021) of one head in place: x * cos + (x with its halves swapped) * sin.
static void rotate(float *x, const float *cosines, const float *sines, long head) {
  long half = head / 2;
  for (long i = 0; i < half; i++) {
    float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] + b * sines[i];
    x[i + half] = b * cosines[i + half] + a * sines[i + half];
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

// A head's key or value to its page: keys as panels over tokens, values as panels over channels.
static void write_head(const Model *m, const Layer *layer, size_t page, long place, int is_key, const float *x) {
  int type = m->cache_type, pairs = lies_in_pairs(type, in_pairs(m->type));
  char *to = layer->cache + page * m->page * m->head * width_of(type);
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
static void prepare_heads(const Model *m, const Layer *layer, const Step *s, float *qkv, int me, int threads) {
  long from, to, all = m->heads + 2 * m->kv_heads;
  share(s->rows * all, me, threads, &from, &to);
  for (long piece = from; piece < to; piece++) {
    long row = piece / all, head = piece % all, position = s->positions[row];
    float *x = qkv + piece * m->head;
    if (head < m->heads + m->kv_heads) {
      if (layer->head_norm) normalise(x, layer->head_norm + head * m->head, x, m->head, m->epsilon);
      rotate(x, layer->cos + position * m->head, layer->sin + position * m->head, m->head);
    }
    if (head >= m->heads) {
      long slot = s->slots[layer->group * s->rows + row], block = slot / m->page, place = slot % m->page;
      long part = head - m->heads;
      write_head(m, layer, (size_t)block * 2 * m->kv_heads + part, place, part < m->kv_heads, x);
    }
  }
}

// inner = act(gate) * up, tiled; `gates` has both, [rows][2 * inner].
static void activate(const Model *m, const float *gates, float *inner, long rows, int me, int threads) {
  long from, to;
  share(rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) {
    const float *gate = gates + row * 2 * m->inner, *up = gate + m->inner;
    float plain[m->coded ? m->inner : 1];
    TiledRow out = row_of_product(m, plain, inner, rows, row, m->inner);
    for (long i = 0; i < m->inner; i += LANES) {
      vec x = load(gate + i), within = x;
      if (m->gelu) within = (x + x * x * x * 0.044715f) * 1.59576912f;  // 2 sqrt(2 / pi): GELU(x) = x sigmoid(this)
      ivec negative = within < splat(0);
      vec small = vexp(-(vec)((ivec)within & 0x7fffffff));  // e to the minus |x|: no overflow
      vec high = 1.0f / (1.0f + small), low = small / (1.0f + small);
      vec sigmoid = (vec)(((ivec)low & negative) | ((ivec)high & ~negative));
      put(&out, i, x * sigmoid * load(up + i));
    }
    if (m->coded) code_row(plain, inner, rows, row, m->inner);
  }
}

static void code_rows(const float *x, float *codes, long rows, long width, int me, int threads) {
  long from, to;
  share(rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) code_row(x + row * width, codes, rows, row, width);
}

static void product(const Linear *linear, const float *x, float *y, long rows, int add, int me, int threads) {
  Product p = {linear, x, y, rows, add};
  multiply(&p, me, threads);
}

static void run_layer(const Model *m, const Layer *layer, const Step *s, const Scratch *b, long *next, Room *room, Pool *pool, int me) {
  int threads = pool->threads;
  long rows = s->rows, hidden = m->hidden, wide = (m->heads + 2 * m->kv_heads) * m->head;
  float *normed = m->coded ? b->codes : b->normed, *mixed = m->coded ? b->codes : b->mixed, *inner = m->coded ? b->codes : b->inner;
  normalise_rows(m, b->stream, layer->before_attention, normed, rows, me, threads);
  meet(pool);
  product(&layer->qkv, normed, b->qkv, rows, 0, me, threads);
  meet(pool);
  prepare_heads(m, layer, s, b->qkv, me, threads);
  meet(pool);
  Attention a = {b->qkv, b->mixed, rows, wide, layer->cache, layer->scales, s->spans + layer->group * s->spans_count, s->spans_count, m->heads, m->kv_heads, m->head, m->page,
                 layer->window, layer->scale, m->score_cap, m->cache_type, in_pairs(m->type), m->coded};
  attend_share(&a, next, room);
  meet(pool);
  if (m->coded) {
    code_rows(b->mixed, mixed, rows, m->heads * m->head, me, threads);
    meet(pool);
  }
  if (layer->after_attention) {
    product(&layer->output, mixed, b->normed, rows, 0, me, threads);
    meet(pool);
    add_normalised(b->stream, b->normed, layer->after_attention, rows, hidden, m->epsilon, me, threads);
  } else {
    product(&layer->output, mixed, b->stream, rows, 1, me, threads);
  }
  meet(pool);
  normalise_rows(m, b->stream, layer->before_mlp, normed, rows, me, threads);
  meet(pool);
  product(&layer->gate_up, normed, b->gates, rows, 0, me, threads);
  meet(pool);
  activate(m, b->gates, inner, rows, me, threads);
  meet(pool);
  if (layer->after_mlp) {
    product(&layer->down, inner, b->normed, rows, 0, me, threads);
    meet(pool);
    add_normalised(b->stream, b->normed, layer->after_mlp, rows, hidden, m->epsilon, me, threads);
  } else {
    product(&layer->down, inner, b->stream, rows, 1, me, threads);
  }
  meet(pool);
}

// The largest logit of each wanted row, whose inputs are in `normed` already.
static void screen(const Model *m, Step *s, const Scratch *b, Pool *pool, int me) {
  int threads = pool->threads;
  long from, to, rows = s->wanted_count;
  share(rows, me, threads, &from, &to);
  for (long i = from; i < to; i++) {
    float plain[m->hidden];
    normalise(b->stream + s->wanted[i] * m->hidden, m->final_norm, plain, m->hidden, m->epsilon);
    see_row(plain, m->head_weights.type, b->codes, b->seen, rows, i, m->hidden);
  }
  meet(pool);
  screen_roughly(&m->screen, b->codes, b->seen, s->logits, rows, me, threads);
  meet(pool);
  Product exact = {&m->head_weights, b->normed, s->logits, rows, 0};
  s->multiplied += screen_exactly(&m->screen, b->seen, &exact, me, threads);
}

static void read_out(const Model *m, Step *s, const Scratch *b, Pool *pool, int me) {
  int threads = pool->threads;
  long from, to, vocab = m->head_weights.outputs;
  share(s->rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) {
    // What was no number in a layer stays in the stream to its end. Zero times any number is zero.
    vec zeros = {};
    for (long i = 0; i < m->hidden; i += LANES) zeros += load(b->stream + row * m->hidden + i) * 0;
    s->sound[row] = sum(zeros) == 0;
  }
  float *normed = m->coded ? b->codes : b->normed;
  share(s->wanted_count, me, threads, &from, &to);
  for (long i = from; i < to; i++)
    normalise_row(m, b->stream + s->wanted[i] * m->hidden, m->final_norm, normed, s->wanted_count, i);
  if (s->screened) {
    screen(m, s, b, pool, me);
    return;
  }
  meet(pool);
  product(&m->head_weights, normed, s->logits, s->wanted_count, 0, me, threads);
  if (m->logit_cap > 0) {
    meet(pool);
    share(s->wanted_count * vocab, me, threads, &from, &to);
    for (long i = from; i < to; i++) s->logits[i] = m->logit_cap * tanhf(s->logits[i] / m->logit_cap);
  }
}

typedef struct {
  const Model *model;
  Step *step;
  Scratch scratch;
  long *counters;
  Pool *pool;
} Job;

static void run_step(void *given, int me) {
  Job *job = given;
  const Model *m = job->model;
  Room room;
  embed(m, job->step, job->scratch.stream, me, job->pool->threads);
  meet(job->pool);
  for (long i = 0; i < m->count; i++)
    run_layer(m, &m->layers[i], job->step, &job->scratch, &job->counters[i], &room, job->pool, me);
  read_out(m, job->step, &job->scratch, job->pool, me);
}

// `scratch` has rows * manta_scratch_floats floats; `counters` one per layer.
EXPORT void manta_step(const Model *m, Step *s, float *scratch, long *counters, Pool *pool) {
  long rows = s->rows;
  Scratch b;
  b.stream = scratch;
  b.normed = b.stream + rows * m->hidden;
  b.qkv = b.normed + rows * m->hidden;
  b.mixed = b.qkv + rows * (m->heads + 2 * m->kv_heads) * m->head;
  b.gates = b.mixed + rows * m->heads * m->head;
  b.inner = b.gates + rows * 2 * m->inner;
  b.codes = b.inner + rows * m->inner;
  b.seen = (Seen *)(b.codes + rows * floats_of_codes(m));
  memset(counters, 0, m->count * sizeof(long));
  Job job = {m, s, b, counters, pool};
  run(pool, run_step, &job);
}
