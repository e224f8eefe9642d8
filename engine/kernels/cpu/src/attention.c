// Causal attention over keys and values that lie in pages, read in place.
//
// A page holds the keys of `page` tokens (a multiple of 16) for one head as panels over tokens, [page / 16] of
// [head][16], and their values as panels over the head's channels, [head / 16] of [page][16]; in bfloat16 pairwise, as
// panel.h says. Both products are then the loop of panel.h. Numbers of one byte have a scale per token, [page] for each head
// of a page: that of keys goes to the scores, that of values to the weights.
//
// Scores run in chunks of 64 tokens that begin at multiples of 64 (online softmax: Milakov and Gimelshein 2018; Dao et
// al. 2022). A query's chunks and their order depend on its own position alone, so neither its neighbours nor the way
// its prompt was cut changes a bit of its result.
#include "gemm.c"

#define CHUNK 64
#define MAX_HEAD_DIM 256  // channels of a head
#define TILE 12  // queries that share one reading of the keys

typedef struct {
  long row, rows;  // in the step's batch
  long position;  // of the first row
  const int32_t *table;  // block of each page
} Span;

typedef struct {
  const float *queries;  // [rows][heads][head], rotated
  const uint16_t *halves;  // the same as bfloat16, without gaps between rows, which tile registers take instead; or null
  void *output;  // [rows][heads * head], unless ``plain`` tiled; pairs of bfloat16 where ``pairs``
  long rows, query_stride;  // of the step; floats from row to row
  char *cache;  // [blocks][2 * kv_heads][page][head]: keys of all heads, then values
  const uint16_t *scales;  // [blocks][2 * kv_heads][page]; null where numbers have none
  const Span *spans;
  long count;  // of spans
  long heads, kv_heads, head, page;
  long window;  // tokens that a query sees, itself included; 0: all
  float scale, softcap;  // softcap 0: none
  int type;  // of keys and values
  int pairs;  // whether products with the model's weights, and so this one's too, take pairs of bfloat16
  int plain;  // whether the output is to be floats, row after row
} Attention;

// TILE and CHUNK where attention uses tile registers, which take more at once (attention_tiles.h).
#define TILE_QUERIES 128
#define TILE_CHUNK 256
// Rows begin in different sets of the first cache.
#define SCORES_STRIDE (TILE_CHUNK + PANEL)
#define OUTPUT_STRIDE (MAX_HEAD_DIM + PANEL)

typedef struct {
  _Alignas(64) uint16_t queries[TILE_QUERIES * MAX_HEAD_DIM], weights[2 * TILE_ROWS * TILE_CHUNK];  // as in row_in_tiles
  float scores[2 * TILE_ROWS][SCORES_STRIDE];  // of two blocks of queries
  float output[TILE_QUERIES][OUTPUT_STRIDE];
  float reference[TILE_QUERIES], totals[TILE_QUERIES][LANES];  // a score that weights are relative to, and their sums
  // Of a chunk: keys that are not whole registers in their page, and all values.
  uint16_t keys[TILE_CHUNK * MAX_HEAD_DIM], values[TILE_CHUNK * MAX_HEAD_DIM];
} TileRoom;

typedef struct {
  float queries[TILE][MAX_HEAD_DIM];
  float output[TILE][MAX_HEAD_DIM];
  float scores[TILE][CHUNK];
  float most[TILE], total[TILE];
  uint32_t query_pairs[TILE][MAX_HEAD_DIM / 2], weight_pairs[TILE][CHUNK / 2];  // as bfloat16, where products take pairs
#if TILES
  TileRoom tiles;
#endif
} Room;

// Which page holds a token's keys (heads below kv_heads) or values.
INLINE size_t page_of(const Attention *a, const Span *span, long token, long head) {
  return (size_t)span->table[token / a->page] * 2 * a->kv_heads + head;
}
INLINE const char *numbers_of(const Attention *a, size_t page) {
  return a->cache + page * a->page * a->head * width_of(a->type);
}
INLINE vec scales_of(const Attention *a, const Span *span, long token, long head) {
  return widen(a->scales + page_of(a, span, token, head) * a->page + token % a->page);
}

// Whether keys and values are multiplied as pairs of bfloat16, and whether that is how they are laid out.
INLINE int multiplies_pairs(int type, int pairs) { return PAIRS && pairs && type != F32; }
INLINE int lies_in_pairs(int type, int pairs) { return type == BF16 || multiplies_pairs(type, pairs); }

#if HALVES && !TILES
#define PAIR_DOTS_OF_KEYS(R) PAIR_DOTS_OF_PANELS(bf16, R) PAIR_DOTS_OF_PANELS(int8, R) PAIR_DOTS_OF_PANELS(fp8, R)
EACH_ROWS(PAIR_DOTS_OF_KEYS)
#endif

// SUMS += x * panels, whatever the numbers are: P panels, pairs of x begin at `halves`, its floats at `floats`. Pairs take as
// many panels at once as registers hold, all else one.
#if HALVES && !TILES
#define PAIR_PRODUCTS(R, halves, length, inputs, ahead)                                                          \
  if (a->type == BF16) panel_dots_bf16_##R(acc, halves, (length) / 2, panels, inputs, ahead);                    \
  else if (a->type == INT8) panel_dots_int8_##R(acc, halves, (length) / 2, panels, inputs, ahead);               \
  else panel_dots_fp8_##R(acc, halves, (length) / 2, panels, inputs, ahead);
#endif
#define PLAIN_PRODUCTS(R, floats, length, inputs)                                                                \
  if (a->type == BF16) dots_bf16_##R(acc[0], floats, length, 1, (const uint16_t *)panels[0], inputs);            \
  else if (a->type == INT8) dots_int8_##R(acc[0], floats, length, 1, (const int8_t *)panels[0], inputs);         \
  else if (a->type == FP8) dots_fp8_##R(acc[0], floats, length, 1, (const int8_t *)panels[0], inputs);           \
  else dots_f32_##R(acc[0], floats, length, 1, (const float *)panels[0], inputs);

// Where there are fewer panels than go together, the last one stands in for those that lack.
#define SCORES_OF(R, P, PRODUCTS)                                                                                \
  for (long at = 0; at < length; at += (P) * PANEL) {                                                            \
    vec acc[P][R][VECS] = {};                                                                                    \
    const char *panels[P];                                                                                       \
    for (int p = 0; p < (P); p++) panels[p] = keys[least(at + p * PANEL, length - PANEL) / PANEL];               \
    PRODUCTS                                                                                                     \
    for (int p = 0; p < (P) && at + p * PANEL < length; p++)                                                     \
      for (int v = 0; v < VECS; v++) {                                                                           \
        long place = at + p * PANEL + v * LANES;                                                                 \
        vec by = splat(a->scale);                                                                                \
        if (a->scales) by *= scales_of(a, span, chunk + place, kv_head);                                         \
        for (int i = 0; i < R; i++) store(&room->scores[start + i][place], acc[p][i][v] * by);                   \
      }                                                                                                          \
  }

#define VALUES_OF(R, P, PRODUCTS)                                                                                \
  for (long first = 0; first < a->head; first += (P) * PANEL) {                                                  \
    vec acc[P][R][VECS];                                                                                         \
    for (int p = 0; p < (P); p++)                                                                                \
      for (int i = 0; i < R; i++)                                                                                \
        for (int v = 0; v < VECS; v++) acc[p][i][v] = load(&room->output[start + i][first + p * PANEL + v * LANES]); \
    for (long at = 0; at < length; at += PANEL) {                                                                \
      const char *panels[P];                                                                                     \
      for (int p = 0; p < (P); p++)                                                                              \
        panels[p] = values[at / PANEL] + (least(first + p * PANEL, a->head - PANEL) * a->page + (chunk + at) % a->page * PANEL) * width; \
      PRODUCTS                                                                                                   \
    }                                                                                                            \
    for (int p = 0; p < (P); p++)                                                                                \
      for (int i = 0; i < R; i++)                                                                                \
        for (int v = 0; v < VECS; v++) store(&room->output[start + i][first + p * PANEL + v * LANES], acc[p][i][v]); \
  }

#define PLAIN_SCORES(R) SCORES_OF(R, 1, PLAIN_PRODUCTS(R, room->queries[start], MAX_HEAD_DIM, a->head))
#define PLAIN_VALUES(R) VALUES_OF(R, 1, PLAIN_PRODUCTS(R, &room->scores[start][at], CHUNK, PANEL))
#if HALVES && !TILES
#define PAIR_SCORES(R) SCORES_OF(R, PANELS_BESIDE(R), PAIR_PRODUCTS(R, room->query_pairs[start], MAX_HEAD_DIM, a->head, apart))
#define PAIR_VALUES(R) VALUES_OF(R, PANELS_BESIDE(R), PAIR_PRODUCTS(R, &room->weight_pairs[start][at / 2], CHUNK, PANEL, 0))
#define SCORES(R) if (pairs) PAIR_SCORES(R) else PLAIN_SCORES(R)
#define VALUES(R) if (pairs) PAIR_VALUES(R) else PLAIN_VALUES(R)
#else
#define SCORES(R) PLAIN_SCORES(R)
#define VALUES(R) PLAIN_VALUES(R)
#endif

#define EACH_TILE(queries, CALL)                                                      \
  for (long tile = 0; tile < tiles(queries); tile++) {                                \
    long start = tile_start(queries, tile), rows = tile_start(queries, tile + 1) - start; \
    FOR_ROWS(rows, CALL)                                                              \
  }

// Sums that a query has so far, when a larger score makes all earlier weights smaller.
INLINE void shrink_sums(float *output, float *total, long head, float by) {
  *total *= by;
  for (long d = 0; d < head; d += LANES) store(output + d, load(output + d) * by);
}

// Scores of one chunk become weights: masked, shifted by the largest so far, exponentiated; sums are kept up. A score that
// is no finite number makes the sums, and so the output, no numbers.
static void soften(const Attention *a, Room *room, long i, long chunk, long length, long position) {
  float *scores = room->scores[i];
  if (a->softcap > 0)
    for (long t = 0; t < length; t++) scores[t] = a->softcap * tanhf(scores[t] / a->softcap);
  long oldest = a->window ? position - a->window + 1 : 0;
  if (position < chunk || oldest >= chunk + length) {
    memset(scores, 0, length * sizeof(float));
    return;
  }
  for (long t = 0; t < oldest - chunk; t++) scores[t] = -INFINITY;
  for (long t = position - chunk + 1; t < length; t++) scores[t] = -INFINITY;
  vec most = load(scores);
  for (long t = LANES; t < length; t += LANES) most = vmax(most, load(scores + t));
  float before = room->most[i], now = largest(most);
  if (now < before) now = before;
  vec total = {};
  for (long t = 0; t < length; t += LANES) {
    vec weight = vexp(load(scores + t) - now);
    total += weight;
    store(scores + t, weight);
  }
  if (now > before) {
    shrink_sums(room->output[i], &room->total[i], a->head, before == -INFINITY ? 0 : vexp(splat(before - now))[0]);
    room->most[i] = now;
  }
  room->total[i] += sum(total);
}

// Floats to pairs of bfloat16; without the instruction nobody asks for them.
INLINE void put_pairs(const float *from, uint32_t *to, long count) {
  TiledRow row = {to, 1, IN_PAIRS, count};
  for (long i = 0; i < count; i += LANES) put(&row, i, load(from + i));
}

// Weights as they meet the values: times these's scales, and in pairs if need be.
static void weigh(const Attention *a, const Span *span, Room *room, long i, long chunk, long length, long value_head) {
  float *weights = room->scores[i];
  if (a->scales)
    for (long t = 0; t < length; t += LANES) store(weights + t, load(weights + t) * scales_of(a, span, chunk + t, value_head));
  if (multiplies_pairs(a->type, a->pairs)) put_pairs(weights, room->weight_pairs[i], length);
}

INLINE int takes_tiles(const Attention *a) { return TILES && multiplies_pairs(a->type, a->pairs); }
INLINE long queries_at_once(const Attention *a) { return takes_tiles(a) ? TILE_QUERIES : TILE; }

// Query heads of one KV head that go together: all of them if they fit.
INLINE long heads_at_once(const Attention *a) {
  long group = a->heads / a->kv_heads, most = least(group, queries_at_once(a));
  while (group % most) most--;
  return most;
}

// A query's output, divided by its weights' total, to where the next product reads it.
static void write_output(const Attention *a, long row, long head, const float *output, float total) {
  long width = a->heads * a->head;
  TiledRow to = a->plain ? plain_row(a->output, row, width) : tiled_row(a->output, a->rows, row, width, a->pairs);
  vec by = splat(1.0f / total);
  for (long d = 0; d < a->head; d += LANES) put(&to, head * a->head + d, load(output + d) * by);
}

// Queries of `tokens` rows from `offset` on, for a group of query heads of one KV head.
static void attend(const Attention *a, const Span *span, long first_head, long offset, long tokens, Room *room) {
  long group = heads_at_once(a), queries = tokens * group, kv_head = first_head / (a->heads / a->kv_heads);
  int pairs = multiplies_pairs(a->type, a->pairs);
  size_t width = width_of(a->type), apart = a->kv_heads * a->page * a->head * width;  // bytes from keys to values
  for (long i = 0; i < queries; i++) {
    long row = span->row + offset + i / group, head = first_head + i % group;
    memcpy(room->queries[i], a->queries + row * a->query_stride + head * a->head, a->head * sizeof(float));
    if (pairs) put_pairs(room->queries[i], room->query_pairs[i], a->head);
    memset(room->output[i], 0, a->head * sizeof(float));
    room->most[i] = -INFINITY, room->total[i] = 0;
  }
  long first_position = span->position + offset, last = first_position + tokens - 1;
  long oldest = a->window ? first_position - a->window + 1 : 0;
  for (long chunk = oldest < 0 ? 0 : oldest / CHUNK * CHUNK; chunk <= last; chunk += CHUNK) {
    long length = last + 1 - chunk < CHUNK ? (last - chunk) / PANEL * PANEL + PANEL : CHUNK;
    const char *keys[CHUNK / PANEL], *values[CHUNK / PANEL];
    for (long at = 0; at < length; at += PANEL) {
      const char *page = numbers_of(a, page_of(a, span, chunk + at, kv_head));
      keys[at / PANEL] = page + (chunk + at) % a->page * a->head * width;
      values[at / PANEL] = page + apart;
    }
    EACH_TILE(queries, SCORES)
    for (long i = 0; i < queries; i++) {
      soften(a, room, i, chunk, length, first_position + i / group);
      weigh(a, span, room, i, chunk, length, a->kv_heads + kv_head);
    }
    EACH_TILE(queries, VALUES)
  }
  for (long i = 0; i < queries; i++)
    write_output(a, span->row + offset + i / group, first_head + i % group, room->output[i], room->total[i]);
}

#if TILES
#include "attention_tiles.h"
#endif

// Takes pieces of work until there is none; `next` is shared by all threads and begins at 0.
static void attend_share(const Attention *a, long *next, Room *room) {
  long group = heads_at_once(a), groups = a->heads / group, tile = queries_at_once(a) / group;
  long index = 0, mine = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
  for (long s = 0; s < a->count; s++) {
    const Span *span = &a->spans[s];
    long tiles = (span->rows + tile - 1) / tile, pieces = tiles * groups;
    for (; mine < index + pieces; mine = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) {
      long piece = mine - index, offset = (tiles - 1 - piece % tiles) * tile, head_group = piece / tiles;
      long tokens = span->rows - offset < tile ? span->rows - offset : tile;
#if TILES
      if (takes_tiles(a)) {
        attend_in_tiles(a, span, head_group * group, offset, tokens, &room->tiles);
        continue;
      }
#endif
      attend(a, span, head_group * group, offset, tokens, room);
    }
    index += pieces;
  }
}
