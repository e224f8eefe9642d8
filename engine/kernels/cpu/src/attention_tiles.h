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

// scores [queries][length] of a chunk, not scaled yet.
static void score_in_tiles(const char *const *keys, long head, long length, long queries, TileRoom *room) {
  long registers = whole_tiles(head) / TILE_INPUTS, stride = TILE_CHUNK * sizeof(float);
  for (long row = 0; row < queries; row += 2 * TILE_ROWS)
    for (long at = 0; at < length; at += 2 * PANEL) {
      const char *x = (const char *)room->queries + row / TILE_ROWS * registers * TILE_BYTES, *w = keys[at / PANEL];
      int blocks = queries - row > TILE_ROWS ? 2 : 1, panels = length - at > PANEL ? 2 : 1;
      size_t apart = panels == 2 ? keys[at / PANEL + 1] - w : 0;
      TileDots d = {x, registers * TILE_BYTES, w, apart, registers, w, 0};
      zero_sums();
      multiply_tile_blocks(&d, blocks, panels);
      float *to = &room->scores[row][at];
      tile_store(0, to, stride);
      if (panels == 2) tile_store(1, to + PANEL, stride);
      if (blocks == 2) tile_store(2, to + TILE_ROWS * TILE_CHUNK, stride);
      if (blocks == 2 && panels == 2) tile_store(3, to + TILE_ROWS * TILE_CHUNK + PANEL, stride);
    }
}

// output [queries][head] += weights * values of a chunk.
static void add_values_in_tiles(long head, long length, long queries, TileRoom *room) {
  long across = TILE_CHUNK / TILE_INPUTS * TILE_BYTES, stride = OUTPUT_STRIDE * sizeof(float);
  for (long row = 0; row < queries; row += 2 * TILE_ROWS)
    for (long first = 0; first < head; first += 2 * PANEL) {
      int blocks = queries - row > TILE_ROWS ? 2 : 1, panels = head - first > PANEL ? 2 : 1;
      const char *x = (const char *)room->weights + row / TILE_ROWS * across;
      const char *w = (const char *)(room->values + first * TILE_CHUNK);
      TileDots d = {x, across, w, across, whole_tiles(length) / TILE_INPUTS, w, 0};
      float *to = &room->output[row][first], *below = to + TILE_ROWS * OUTPUT_STRIDE;
      tile_load(0, to, stride);
      if (panels == 2) tile_load(1, to + PANEL, stride);
      if (blocks == 2) tile_load(2, below, stride);
      if (blocks == 2 && panels == 2) tile_load(3, below + PANEL, stride);
      multiply_tile_blocks(&d, blocks, panels);
      tile_store(0, to, stride);
      if (panels == 2) tile_store(1, to + PANEL, stride);
      if (blocks == 2) tile_store(2, below, stride);
      if (blocks == 2 && panels == 2) tile_store(3, below + PANEL, stride);
    }
}

// Scores of a query become its weights, as the registers take them; zeros after the last token.
static void weigh_in_tiles(const Attention *a, const Span *span, long kv_head, long chunk, long length, long position, long i, TileRoom *room) {
  float *scores = room->scores[i];
  for (long t = 0; t < length; t += LANES) {
    vec by = splat(a->scale);
    if (a->scales) by *= scales_of(a, span, chunk + t, kv_head);
    store(scores + t, load(scores + t) * by);
  }
  Softmax query = {scores, room->output[i], &room->most[i], &room->total[i]};
  soften(a, &query, chunk, length, position);
  TiledRow to = row_in_tiles(room->weights, i, TILE_CHUNK);
  for (long t = 0; t < length; t += LANES) {
    vec weight = load(scores + t);
    if (a->scales) weight *= scales_of(a, span, chunk + t, a->kv_heads + kv_head);
    put(&to, t, weight);
  }
  for (long t = length; t < whole_tiles(length); t += LANES) put(&to, t, splat(0));
}

// As `attend`.
static void attend_in_tiles(const Attention *a, const Span *span, long first_head, long offset, long tokens, TileRoom *room) {
  long group = heads_at_once(a), queries = tokens * group, kv_head = first_head / (a->heads / a->kv_heads);
  shape_tiles(queries, TILE_ROWS);
  for (long i = 0; i < queries; i++) {
    long row = span->row + offset + i / group, head = first_head + i % group;
    const float *query = a->queries + row * a->query_stride + head * a->head;
    TiledRow to = row_in_tiles(room->queries, i, a->head);
    for (long d = 0; d < a->head; d += LANES) put(&to, d, load(query + d));
    memset(room->output[i], 0, a->head * sizeof(float));
    room->most[i] = -INFINITY, room->total[i] = 0;
  }
  long first_position = span->position + offset, last = first_position + tokens - 1;
  long oldest = a->window ? first_position - a->window + 1 : 0;
  for (long chunk = oldest < 0 ? 0 : oldest / TILE_CHUNK * TILE_CHUNK; chunk <= last; chunk += TILE_CHUNK) {
    long length = last + 1 - chunk < TILE_CHUNK ? (last - chunk) / PANEL * PANEL + PANEL : TILE_CHUNK;
    const char *keys[TILE_CHUNK / PANEL];
    find_keys(a, span, kv_head, chunk, length, room, keys);
    score_in_tiles(keys, a->head, length, queries, room);
    for (long i = 0; i < queries; i++) weigh_in_tiles(a, span, kv_head, chunk, length, first_position + i / group, i, room);
    gather_values(a, span, kv_head, chunk, length, room);
    add_values_in_tiles(a->head, length, queries, room);
  }
  for (long i = 0; i < queries; i++)
    write_output(a, span->row + offset + i / group, first_head + i % group, room->output[i], room->total[i]);
}
