// One step of a decoder: from token ids to logits, in one call, threads meeting at barriers.
//
// Activations are float32, but for inputs of products: bfloat16 with such weights, where the processor multiplies pairs of
// them, and whole numbers with weights that are. Keys and values are float32, bfloat16 or one byte each.
#include "heads.c"
#include "pool.h"

static void product(const Linear *linear, const float *x, float *y, int add, const Part *part) {
  Product p = {.linear = linear, .x = x, .y = y, .rows = part->rows, .add = add, .first = part->first, .end = part->end};
  multiply(&p, part->me, part->threads);
}

// An MLP's first product with its activation, act(gate) * up, which takes `gates` in between if outputs are few.
static void product_gated(const Model *m, const Layer *layer, const float *x, float *gates, float *inner, Pool *pool, const Part *part) {
  const Linear *linear = &layer->gate_up;
  if (can_gate(linear, part->rows)) {
    Product p = {.linear = linear, .x = x, .rows = part->rows, .gated = inner, .gelu = m->gelu, .first = part->first, .end = part->end};
    multiply(&p, part->me, part->threads);
    return;
  }
  product(linear, x, gates, 0, part);
  meet(pool);
  activate(m, gates, inner, part->rows, part->me, part->threads);
}

// y (+)= x W^T, or with a norm of what is added. `room` takes [rows][hidden] floats in between.
static void add_product(const Model *m, const Linear *linear, const float *norm, const float *x, float *y, float *room, Pool *pool, const Part *part) {
  if (!norm) {
    product(linear, x, y, 1, part);
    return;
  }
  product(linear, x, room, 0, part);
  if (!part->end) meet(pool);
  add_normalised(y, room, norm, m->hidden, m->epsilon, part);
}

// Whether a thread makes the heads of its own rows while they are in its cache, and queries as attention's registers take them.
INLINE int makes_heads(const Model *m, const Part *part) {
  return TILES && part->end && m->cache_type != F32 && m->head % PANEL == 0 && m->head <= m->hidden;
}

// Queries to `qkv`, keys and values to their pages.
static void make_queries(const Model *m, const Layer *layer, const Step *s, const Scratch *b, const float *normed, Pool *pool, const Part *part) {
#if TILES
  if (makes_heads(m, part)) {
    make_heads(m, layer, s, normed, (uint16_t *)b->qkv, b->gates + part->first * m->hidden, part);
    return;
  }
#endif
  product(&layer->qkv, normed, b->qkv, 0, part);
  if (!part->end) meet(pool);
  prepare_heads(m, layer, s, b->qkv, part);
}

// Up to attention: queries, keys and values.
static void begin_layer(const Model *m, const Layer *layer, const Step *s, const Scratch *b, Pool *pool, const Part *part) {
  float *normed = m->coded ? b->codes : b->normed;
  normalise_rows(m, b->stream, layer->before_attention, normed, part);
  if (!part->end) meet(pool);
  make_queries(m, layer, s, b, normed, pool, part);
}

static void attend_in_layer(const Model *m, const Layer *layer, const Step *s, const Scratch *b, long *next, Room *room, const Part *part) {
  long rows = s->rows, wide = (m->heads + 2 * m->kv_heads) * m->head;
  Attention a = {b->qkv, makes_heads(m, part) ? (const uint16_t *)b->qkv : NULL, b->mixed, rows, wide, layer->cache, layer->scales, s->spans + layer->group * s->spans_count, s->spans_count, m->heads, m->kv_heads, m->head, m->page,
                 layer->window, layer->scale, m->score_cap, m->cache_type, in_pairs(m->type), m->coded};
  attend_share(&a, next, room);
}

// From attention on: its output, and the MLP.
static void end_layer(const Model *m, const Layer *layer, const Scratch *b, Pool *pool, const Part *part) {
  float *normed = m->coded ? b->codes : b->normed, *mixed = m->coded ? b->codes : b->mixed, *inner = m->coded ? b->codes : b->inner;
  float *room = part->end ? b->gates : b->normed;  // `normed` has rows in tiles, which are no thread's own as floats
  int waits = !part->end;
  add_product(m, &layer->output, layer->after_attention, mixed, b->stream, room, pool, part);
  if (waits) meet(pool);
  normalise_rows(m, b->stream, layer->before_mlp, normed, part);
  if (waits) meet(pool);
  product_gated(m, layer, normed, b->gates, inner, pool, part);
  if (waits) meet(pool);
  add_product(m, &layer->down, layer->after_mlp, inner, b->stream, room, pool, part);
  if (waits) meet(pool);
}

// All layers, where threads share channels and outputs.
static void run_layers(const Model *m, const Step *s, const Scratch *b, long *counters, Room *room, Pool *pool, const Part *part) {
  embed(m, s, b->stream, part);
  meet(pool);
  for (long i = 0; i < m->count; i++) {
    const Layer *layer = &m->layers[i];
    begin_layer(m, layer, s, b, pool, part);
    meet(pool);
    attend_in_layer(m, layer, s, b, &counters[i], room, part);
    meet(pool);
    if (m->coded) {
      code_rows(b->mixed, b->codes, s->rows, m->heads * m->head, part->me, part->threads);
      meet(pool);
    }
    end_layer(m, layer, b, pool, part);
  }
}

// All layers, where threads take rows of their own, `each` at once: they wait for each other before and after attention only.
// The second half of the counters counts what was taken.
static void run_layers_of_own_rows(const Model *m, const Step *s, const Scratch *b, long *counters, Room *room, Pool *pool, long each, Part *part) {
  long *taken = counters + m->count;
  while (take_rows(part, each, &taken[0])) {
    embed(m, s, b->stream, part);
    begin_layer(m, &m->layers[0], s, b, pool, part);
  }
  for (long i = 0; i < m->count; i++) {
    meet(pool);
    attend_in_layer(m, &m->layers[i], s, b, &counters[i], room, part);
    meet(pool);
    while (take_rows(part, each, &taken[i + 1])) {
      end_layer(m, &m->layers[i], b, pool, part);
      if (i + 1 < m->count) begin_layer(m, &m->layers[i + 1], s, b, pool, part);
    }
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
  s->multiplied += screen_exactly(b->seen, &m->head_weights, b->normed, s->logits, rows, me, threads);
}

// All logits of each wanted row, and which of them is the largest.
static void compute_logits(const Model *m, Step *s, const Scratch *b, Pool *pool, int me) {
  int threads = pool->threads;
  long from, to, rows = s->wanted_count, vocab = m->head_weights.outputs;
  Part part = {me, threads, rows, 0, 0};
  product(&m->head_weights, m->coded ? b->codes : b->normed, s->logits, 0, &part);
  meet(pool);
  share(vocab, me, threads, &from, &to);
  for (long row = 0; row < rows; row++) {
    float *logits = s->logits + row * vocab;
    if (m->logit_cap > 0)
      for (long n = from; n < to; n++) logits[n] = m->logit_cap * tanhf(logits[n] / m->logit_cap);
    if (s->largest) find_largest(&b->seen[row], logits + from, from, to - from);
  }
}

static void read_out(const Model *m, Step *s, const Scratch *b, Pool *pool, int me) {
  int threads = pool->threads;
  long from, to;
  share(s->rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) {
    // What was no number in a layer stays in the stream to its end. Zero times any number is zero.
    vec zeros = {};
    for (long i = 0; i < m->hidden; i += LANES) zeros += load(b->stream + row * m->hidden + i) * 0;
    s->sound[row] = sum(zeros) == 0;
  }
  share(s->wanted_count, me, threads, &from, &to);
  for (long i = from; i < to; i++) {
    normalise_row(m, b->stream + s->wanted[i] * m->hidden, m->final_norm, m->coded ? b->codes : b->normed, s->wanted_count, i);
    b->seen[i].found = 0;
  }
  if (s->screened) {
    screen(m, s, b, pool, me);
  } else {
    meet(pool);
    compute_logits(m, s, b, pool, me);
  }
  if (!s->largest) return;
  meet(pool);
  for (long i = from; i < to; i++) s->largest[i] = output_of(b->seen[i].found);
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
  Part part = {me, job->pool->threads, job->step->rows, 0, 0};
  long each = own_rows(m, part.rows, part.threads);
  if (each) run_layers_of_own_rows(m, job->step, &job->scratch, job->counters, &room, job->pool, each, &part);
  else run_layers(m, job->step, &job->scratch, job->counters, &room, job->pool, &part);
  read_out(m, job->step, &job->scratch, job->pool, me);
  release_tiles();
}

// `scratch` has manta_scratch_floats(m, rows) floats; `counters` two per layer and one.
EXPORT void manta_step(const Model *m, Step *s, float *scratch, long *counters, Pool *pool) {
  long rows = stored_rows(s->rows);
  Scratch b;
  b.stream = scratch;
  b.normed = b.stream + rows * m->hidden;
  b.qkv = b.normed + rows * m->hidden;
  b.mixed = b.qkv + rows * (m->heads + 2 * m->kv_heads) * m->head;
  b.gates = b.mixed + rows * m->heads * m->head;
  b.inner = b.gates + rows * floats_of_gates(m);
  b.codes = b.inner + rows * m->inner;
  b.seen = (Seen *)(b.codes + rows * floats_of_codes(m));
  memset(counters, 0, (2 * m->count + 1) * sizeof(long));
  Job job = {m, s, b, counters, pool};
  run(pool, run_step, &job);
}

typedef struct {
  const Linear *linear;
  const float *x;
  float *y, *inputs;
  long rows;
  Pool *pool;
} ProductJob;

static void run_product(void *given, int me) {
  ProductJob *job = given;
  const Linear *linear = job->linear;
  int threads = job->pool->threads;
  long from, to, width = linear->inputs, rows = job->rows;
  share(rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) {
    const float *x = job->x + row * width;
    TiledRow tiled = tiled_row(job->inputs, rows, row, width, in_pairs(linear->type));
    if (is_coded(linear->type)) code_row(x, job->inputs, rows, row, width);
    else normalise_part(x, NULL, &tiled, 1, 0, width);
  }
  meet(job->pool);
  Part part = {me, threads, rows, 0, 0};
  product(linear, job->inputs, job->y, 0, &part);
  release_tiles();
}

// One product alone: y [rows][outputs] of x [rows][inputs]. `inputs` has room for as many floats as x has, its rows rounded
// up to 16.
EXPORT void manta_product(const Linear *linear, const float *x, float *y, float *inputs, long rows, Pool *pool) {
  ProductJob job = {linear, x, y, inputs, rows, pool};
  run(pool, run_product, &job);
}
