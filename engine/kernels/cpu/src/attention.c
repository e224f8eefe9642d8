// Causal attention over keys and values that lie in pages, read in place.
//
// A page holds the keys of `page` tokens (a multiple of 16) for one head as panels over tokens, [page / 16] of
// [head][16], and their values as panels over the head's channels, [head / 16] of [page][16]; in bfloat16 pairwise, as
// panel.h says. Both products are then the loop of panel.h.
//
// Scores run in chunks of 64 tokens that begin at multiples of 64 (online softmax: Milakov and Gimelshein 2018; Dao et
// al. 2022). A query's chunks and their order depend on its own position alone, so neither its neighbours nor the way
// its prompt was cut changes a bit of its result.
#include "gemm.c"

#define CHUNK 64
#define MOST_HEAD 256  // channels of a head
#define TILE 12  // queries that share one reading of the keys

typedef struct {
  long row, rows;  // in the step's batch
  long position;  // of the first row
  const int32_t *table;  // block of each page
} Span;

typedef struct {
  float *queries;  // [rows][heads][head], rotated
  void *output;  // [rows][heads * head], tiled; pairs of bfloat16 where ``pairs``
  long rows, query_stride;  // of the step; floats from row to row
  char *cache;  // [blocks][2 * kv_heads][page][head]: keys of all heads, then values
  const Span *spans;
  long count;  // of spans
  long heads, kv_heads, head, page;
  long window;  // tokens that a query sees, itself included; 0: all
  float scale, softcap;  // softcap 0: none
  int type, pairs;
} Attention;

typedef struct {
  float queries[TILE][MOST_HEAD];
  float output[TILE][MOST_HEAD];
  float scores[TILE][CHUNK];
  float most[TILE], total[TILE];
} Room;

INLINE const char *page_of(const Attention *a, const Span *span, long token, long head) {
  size_t bytes = (size_t)a->page * a->head * (a->type == BF16 ? 2 : 4);
  return a->cache + ((size_t)span->table[token / a->page] * 2 * a->kv_heads + head) * bytes;
}

#define SCORES(R)                                                                                           \
  {                                                                                                         \
    vec acc[R][VECS] = {};                                                                                  \
    if (a->type == BF16) dots_bf16_##R(acc, room->queries[start], MOST_HEAD, 1, (const uint16_t *)panel, a->head); \
    else dots_f32_##R(acc, room->queries[start], MOST_HEAD, 1, (const float *)panel, a->head);              \
    for (int i = 0; i < R; i++)                                                                             \
      for (int v = 0; v < VECS; v++) store(&room->scores[start + i][at + v * LANES], acc[i][v] * a->scale); \
  }

#define VALUES(R)                                                                                           \
  {                                                                                                         \
    vec acc[R][VECS];                                                                                       \
    for (int i = 0; i < R; i++)                                                                             \
      for (int v = 0; v < VECS; v++) acc[i][v] = load(&room->output[start + i][first + v * LANES]);         \
    if (a->type == BF16) dots_bf16_##R(acc, &room->scores[start][at], CHUNK, 1, (const uint16_t *)panel, PANEL); \
    else dots_f32_##R(acc, &room->scores[start][at], CHUNK, 1, (const float *)panel, PANEL);                \
    for (int i = 0; i < R; i++)                                                                             \
      for (int v = 0; v < VECS; v++) store(&room->output[start + i][first + v * LANES], acc[i][v]);         \
  }

#define EACH_TILE(queries, CALL)                                                      \
  for (long tile = 0; tile < tiles(queries); tile++) {                                \
    long start = tile_start(queries, tile), rows = tile_start(queries, tile + 1) - start; \
    FOR_ROWS(rows, CALL)                                                              \
  }

// Scores of one chunk become weights: masked, shifted by the largest so far, exponentiated; sums are kept up.
static void soften(const Attention *a, Room *room, long i, long chunk, long length, long position) {
  float *scores = room->scores[i];
  if (a->softcap > 0)
    for (long t = 0; t < length; t++) scores[t] = a->softcap * tanhf(scores[t] / a->softcap);
  long oldest = a->window ? position - a->window + 1 : 0;
  for (long t = 0; t < length; t++)
    if (chunk + t > position || chunk + t < oldest) scores[t] = -INFINITY;
  vec most = load(scores);
  for (long t = LANES; t < length; t += LANES) most = vmax(most, load(scores + t));
  float before = room->most[i], now = largest(most);
  if (now < before) now = before;
  if (now == -INFINITY) {  // nothing visible yet: weights of zero
    memset(scores, 0, length * sizeof(float));
    return;
  }
  vec total = {};
  for (long t = 0; t < length; t += LANES) {
    vec weight = vexp(load(scores + t) - now);
    total += weight;
    store(scores + t, weight);
  }
  if (now > before) {
    float shrink = before == -INFINITY ? 0 : vexp(splat(before - now))[0];
    room->total[i] *= shrink;
    for (long d = 0; d < a->head; d += LANES) store(&room->output[i][d], load(&room->output[i][d]) * shrink);
    room->most[i] = now;
  }
  room->total[i] += sum(total);
}

// Query heads of one KV head that go together: all of them if they fit.
INLINE long heads_at_once(const Attention *a) {
  long group = a->heads / a->kv_heads, most = group < TILE ? group : TILE;
  while (group % most) most--;
  return most;
}

// Queries of `tokens` rows from `offset` on, for a group of query heads of one KV head.
static void attend(const Attention *a, const Span *span, long first_head, long offset, long tokens, Room *room) {
  long group = heads_at_once(a), queries = tokens * group, kv_head = first_head / (a->heads / a->kv_heads);
  for (long i = 0; i < queries; i++) {
    long row = span->row + offset + i / group, head = first_head + i % group;
    memcpy(room->queries[i], a->queries + row * a->query_stride + head * a->head, a->head * sizeof(float));
    memset(room->output[i], 0, a->head * sizeof(float));
    room->most[i] = -INFINITY, room->total[i] = 0;
  }
  long first_position = span->position + offset, last = first_position + tokens - 1;
  long start = a->window ? first_position - a->window + 1 : 0;
  start = start < 0 ? 0 : start / CHUNK * CHUNK;
  size_t width = a->type == BF16 ? 2 : 4;
  for (long chunk = start; chunk <= last; chunk += CHUNK) {
    long length = last + 1 - chunk < CHUNK ? (last - chunk) / PANEL * PANEL + PANEL : CHUNK;
    for (long at = 0; at < length; at += PANEL) {
      const char *panel = page_of(a, span, chunk + at, kv_head) + (chunk + at) % a->page * a->head * width;
      EACH_TILE(queries, SCORES)
    }
    for (long i = 0; i < queries; i++) soften(a, room, i, chunk, length, first_position + i / group);
    for (long at = 0; at < length; at += PANEL) {
      const char *values = page_of(a, span, chunk + at, a->kv_heads + kv_head);
      for (long first = 0; first < a->head; first += PANEL) {
        const char *panel = values + (first * a->page + (chunk + at) % a->page * PANEL) * width;
        EACH_TILE(queries, VALUES)
      }
    }
  }
  for (long i = 0; i < queries; i++) {
    long row = span->row + offset + i / group, head = first_head + i % group;
    TiledRow to = tiled_row(a->output, a->rows, row, a->heads * a->head, a->pairs);
    vec by = splat(1.0f / room->total[i]);
    for (long d = 0; d < a->head; d += LANES) put(&to, head * a->head + d, load(&room->output[i][d]) * by);
  }
}

// Takes pieces of work until there is none; `next` is shared by all threads and begins at 0.
static void attend_share(const Attention *a, long *next, Room *room) {
  long group = heads_at_once(a), groups = a->heads / group, tile = TILE / group;
  long index = 0, mine = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
  for (long s = 0; s < a->count; s++) {
    const Span *span = &a->spans[s];
    long tiles = (span->rows + tile - 1) / tile, pieces = tiles * groups;
    for (; mine < index + pieces; mine = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) {
      long piece = mine - index, offset = piece / groups * tile;
      long tokens = span->rows - offset < tile ? span->rows - offset : tile;
      attend(a, span, piece % groups * group, offset, tokens, room);
    }
    index += pieces;
  }
}
