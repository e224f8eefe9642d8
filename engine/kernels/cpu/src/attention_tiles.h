// Attention with tile registers. Queries of all heads that share a KV head are rows, those of a single token too. Keys of
// bfloat16 are multiplied where they lie; values, and keys of other numbers, are brought together first.

// Some pairs of keys or values, 16 pairs in a row of 64 bytes, as bfloat16.
static void widen_pairs(int type, const char *from, uint16_t *to, long rows) {
  if (type == BF16) {
    memcpy(to, from, rows * LINE);
    return;
  }
#if HALVES
  for (long row = 0; row < rows; row++) {
    const char *bytes = from + row * BYTES_OF_int8;
    _mm512_storeu_si512(to + row * 2 * PANEL, (__m512i)(type == INT8 ? pairs_int8(bytes) : pairs_fp8(bytes)));
  }
#else
  const int8_t *bytes = (const int8_t *)from;
  for (long i = 0; i < rows * 2 * PANEL; i += LANES) {
    half_u halves = narrow(type == INT8 ? widen_int8(bytes + i) : widen_fp8(bytes + i));
    memcpy(to + i, &halves, sizeof(halves));
  }
#endif
}

// Where the keys of each panel of a chunk lie in whole registers.
static void find_keys(const Attention *a, const Span *span, long kv_head, long chunk, long length, TileRoom *room, const char **keys) {
  long registers = whole_tiles(a->head) / TILE_INPUTS, whole = a->type == BF16 && a->head % TILE_INPUTS == 0;
  for (long at = 0; at < length; at += PANEL) {
    const char *page = numbers_of(a, page_of(a, span, chunk + at, kv_head));
    const char *panel = page + (chunk + at) % a->page * a->head * width_of(a->type);
    uint16_t *copy = room->keys + at / PANEL * registers * TILE_BYTES / 2;
    keys[at / PANEL] = whole ? panel : (const char *)copy;
    if (whole) continue;
    widen_pairs(a->type, panel, copy, a->head / 2);
    memset(copy + a->head * PANEL, 0, (whole_tiles(a->head) - a->head) * PANEL * 2);
  }
}

// Values of a chunk, brought together as [head / 16][TILE_CHUNK / 32] registers; zeros after the last token.
static void gather_values(const Attention *a, const Span *span, long kv_head, long chunk, long length, TileRoom *room) {
  long rows = PANEL / 2;  // of pairs that 16 tokens fill
  for (long at = 0; at < length; at += PANEL) {
    const char *page = numbers_of(a, page_of(a, span, chunk + at, a->kv_heads + kv_head));
    for (long first = 0; first < a->head; first += PANEL) {
      uint16_t *to = room->values + first * TILE_CHUNK + at * PANEL;
      widen_pairs(a->type, page + (first * a->page + (chunk + at) % a->page * PANEL) * width_of(a->type), to, rows);
      if (at + PANEL == length && length % TILE_INPUTS) memset(to + PANEL * PANEL, 0, PANEL * PANEL * 2);
    }
  }
}

#define MOST_POWER 32.0f  // of two, that a weight may be

// Queries of a group of heads: rows of tile registers.
typedef struct {
  const Attention *a;
  const Span *span;
  long kv_head, group, count;
  long position;  // of the first token
  float by;  // what a score is to be multiplied by to be a power of two
  int by_parts;  // whether scores have to be scaled one by one before that
  TileRoom *room;
} Queries;

// Two blocks of queries and the part of a chunk that any of them sees.
typedef struct {
  long chunk, length;  // the first token, and tokens in whole panels; 0 if none is seen
  long row, end;  // queries
} Scores;

static void read_queries(const Queries *q, long first_head, long offset) {
  const Attention *a = q->a;
  TileRoom *room = q->room;
  for (long i = 0; i < q->count; i++) {
    long row = q->span->row + offset + i / q->group, head = first_head + i % q->group;
    TiledRow to = row_in_tiles(room->queries, i, a->head);
    if (a->halves) {
      const uint16_t *query = a->halves + (row * a->heads + head) * a->head;
      for (long d = 0; d < a->head; d += LANES) put(&to, d, widen(query + d));
    } else {
      const float *query = a->queries + row * a->query_stride + head * a->head;
      for (long d = 0; d < a->head; d += LANES) put(&to, d, load(query + d));
    }
    memset(room->output[i], 0, a->head * sizeof(float));
    store(room->totals[i], splat(0));
    room->reference[i] = -INFINITY;
  }
}

static Scores scores_of(const Queries *q, long chunk, long row) {
  Scores s = {.chunk = chunk, .row = row, .end = least(q->count, row + 2 * TILE_ROWS)};
  long last = q->position + (s.end - 1) / q->group;
  s.length = last < chunk ? 0 : least(TILE_CHUNK, (last - chunk) / PANEL * PANEL + PANEL);
  return s;
}

// Scores of keys, not scaled yet.
static void score_in_tiles(const Queries *q, const Scores *s, const char *const *keys) {
  long registers = whole_tiles(q->a->head) / TILE_INPUTS;
  int blocks = s->end - s->row > TILE_ROWS ? 2 : 1;
  for (long at = 0; at < s->length; at += 2 * PANEL) {
    const char *x = (const char *)q->room->queries + s->row / TILE_ROWS * registers * TILE_BYTES, *w = keys[at / PANEL];
    int panels = s->length - at > PANEL ? 2 : 1;
    TileDots d = {.x = x, .x_apart = registers * TILE_BYTES, .w = w, .steps = registers};
    d.w_apart = panels == 2 ? keys[at / PANEL + 1] - w : 0;
    zero_sums();
    multiply_near_blocks(&d, blocks, panels);
    store_blocks(&q->room->scores[0][at], SCORES_STRIDE, blocks, panels);
  }
}

// output [queries][head] += weights * values of a chunk.
static void add_values_in_tiles(const Queries *q, const Scores *s) {
  long across = TILE_CHUNK / TILE_INPUTS * TILE_BYTES, head = q->a->head;
  int blocks = s->end - s->row > TILE_ROWS ? 2 : 1;
  for (long first = 0; first < head; first += 2 * PANEL) {
    int panels = head - first > PANEL ? 2 : 1;
    TileDots d = {.x = (const char *)q->room->weights, .x_apart = across, .w_apart = across};
    d.w = (const char *)(q->room->values + first * TILE_CHUNK), d.steps = whole_tiles(s->length) / TILE_INPUTS;
    float *to = &q->room->output[s->row][first];
    load_blocks(to, OUTPUT_STRIDE, blocks, panels);
    multiply_near_blocks(&d, blocks, panels);
    store_blocks(to, OUTPUT_STRIDE, blocks, panels);
  }
}

// 2 to the v, for v of at most 127: relative error below 9e-5, of which bfloat16 keeps 4e-3. A polynomial of degree 3, 1 at
// 0 and fitted for the least largest relative error; far below 0 the result is 0.
INLINE vec power_of_two(vec v) {
  vec r = above_whole(v);
  vec p = r * 7.70670596e-2f + 2.27644994e-1f;
  p = p * r + 6.95116769e-1f;
  p = p * r + 1.0f;
  return times_power(p, v);
}

// Scores as the softmax takes them where a factor is not enough: scaled by the keys' own scales, or capped.
static void scale_scores(const Queries *q, const Scores *s, float *scores) {
  const Attention *a = q->a;
  for (long t = 0; t < s->length; t += LANES) {
    vec by = splat(a->scale);
    if (a->scales) by *= scales_of(a, q->span, s->chunk + t, q->kv_head);
    store(scores + t, load(scores + t) * by);
  }
  if (a->softcap > 0)
    for (long t = 0; t < s->length; t++) scores[t] = a->softcap * tanhf(scores[t] / a->softcap);
}

// Masks what query `i` does not see of a chunk, up to the end of what it sees, in whole rows of a register, which is
// returned; 0 if it sees nothing.
static long mask_scores(const Queries *q, const Scores *s, long i, float *scores) {
  long position = q->position + i / q->group, window = q->a->window;
  long first = window && position - window + 1 > s->chunk ? position - window + 1 - s->chunk : 0;
  long end = least(s->length, position + 1 - s->chunk);
  if (end <= first) return 0;
  for (long t = 0; t < first; t++) scores[t] = -INFINITY;
  for (long t = end; t < whole_tiles(end); t++) scores[t] = -INFINITY;
  return whole_tiles(end);
}

static float largest_score(const float *scores, long end) {
  vec most = load(scores), other = load(scores + LANES);
  for (long t = 2 * LANES; t < end; t += 2 * LANES) most = vmax(most, load(scores + t)), other = vmax(other, load(scores + t + LANES));
  return largest(vmax(most, other));
}

// Powers of two to each score less the reference of query `i`, and their total. Those are its weights, but for the scales
// of the values, and written as the registers take them. Returns the largest score of each lane, less the reference.
INLINE vec exponentiate(const Queries *q, const Scores *s, long i, const float *scores, long end, vec *total) {
  const Attention *a = q->a;
  float reference = q->room->reference[i];
  TiledRow to = row_in_tiles(q->room->weights, i - s->row, TILE_CHUNK);
  vec one_most = splat(-INFINITY), other_most = one_most, one_total = {}, other_total = {};
  for (long t = 0; t < end; t += 2 * LANES) {
    vec one = load(scores + t) - reference, other = load(scores + t + LANES) - reference;
    one_most = vmax(one_most, one), other_most = vmax(other_most, other);
    one = power_of_two(one * q->by), other = power_of_two(other * q->by);
    one_total += one, other_total += other;
    if (a->scales) {
      long token = s->chunk + t, head = a->kv_heads + q->kv_head;
      if (t < s->length) one *= scales_of(a, q->span, token, head);
      if (t + LANES < s->length) other *= scales_of(a, q->span, token + LANES, head);
    }
    put_two(&to, t, one, other);
  }
  *total = one_total + other_total;
  return vmax(one_most, other_most);
}

// The reference becomes `to`, and what has been added up less.
static void raise_reference(const Queries *q, long i, float to) {
  TileRoom *room = q->room;
  float shrink = power_of_two(splat((room->reference[i] - to) * q->by))[0];
  for (long d = 0; d < q->a->head; d += LANES) store(room->output[i] + d, load(room->output[i] + d) * shrink);
  store(room->totals[i], load(room->totals[i]) * shrink);
  room->reference[i] = to;
}

// Scores of query `i` become its weights; zeros for what it does not see. Weights need a reference that is near the largest
// score, not that score itself: floats of any size are as exact. So the largest of the first chunk serves until a weight
// would be above 2^MOST_POWER, and a chunk is gone through once. A score that is infinite or no number makes the sums, and
// so the output, no numbers; minus infinity weighs nothing.
static void weigh_in_tiles(const Queries *q, const Scores *s, long i) {
  TileRoom *room = q->room;
  float *scores = room->scores[i - s->row];
  if (q->by_parts) scale_scores(q, s, scores);
  long end = mask_scores(q, s, i, scores);
  TiledRow to = row_in_tiles(room->weights, i - s->row, TILE_CHUNK);
  for (long t = end; t < whole_tiles(s->length); t += 2 * LANES) put_two(&to, t, splat(0), splat(0));
  if (!end) return;
  vec total;
  if (room->reference[i] == -INFINITY) room->reference[i] = largest_score(scores, end);
  vec most = exponentiate(q, s, i, scores, end, &total);
  if (any_above(most * q->by, MOST_POWER)) {
    raise_reference(q, i, largest_score(scores, end));
    exponentiate(q, s, i, scores, end, &total);
  }
  store(room->totals[i], load(room->totals[i]) + total);
}

// As `attend`.
static void attend_in_tiles(const Attention *a, const Span *span, long first_head, long offset, long tokens, TileRoom *room) {
  long group = heads_at_once(a), kv_head = first_head / (a->heads / a->kv_heads);
  int by_parts = a->scales || a->softcap > 0 || a->scale <= 0;
  float by = (by_parts ? 1 : a->scale) * 1.44269504f;  // log2(e)
  Queries q = {a, span, kv_head, group, tokens * group, span->position + offset, by, by_parts, room};
  shape_tiles(q.count, TILE_ROWS);
  read_queries(&q, first_head, offset);
  long last = q.position + tokens - 1, oldest = a->window ? q.position - a->window + 1 : 0;
  for (long chunk = oldest < 0 ? 0 : oldest / TILE_CHUNK * TILE_CHUNK; chunk <= last; chunk += TILE_CHUNK) {
    long length = least(TILE_CHUNK, (last - chunk) / PANEL * PANEL + PANEL);
    const char *keys[TILE_CHUNK / PANEL];
    find_keys(a, span, kv_head, chunk, length, room, keys);
    gather_values(a, span, kv_head, chunk, length, room);
    for (long row = 0; row < q.count; row += 2 * TILE_ROWS) {
      Scores s = scores_of(&q, chunk, row);
      if (!s.length) continue;
      score_in_tiles(&q, &s, keys);
      for (long i = s.row; i < s.end; i++) weigh_in_tiles(&q, &s, i);
      add_values_in_tiles(&q, &s);
    }
  }
  for (long i = 0; i < q.count; i++)
    write_output(a, span->row + offset + i / group, first_head + i % group, room->output[i], sum(load(room->totals[i])));
}
