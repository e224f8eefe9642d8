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

// scores [blocks * 16][length] of one or two blocks of queries from `row` on, not scaled yet.
static void score_in_tiles(const char *const *keys, long head, long length, long row, int blocks, TileRoom *room) {
  long registers = whole_tiles(head) / TILE_INPUTS;
  for (long at = 0; at < length; at += 2 * PANEL) {
    const char *x = (const char *)room->queries + row / TILE_ROWS * registers * TILE_BYTES, *w = keys[at / PANEL];
    int panels = length - at > PANEL ? 2 : 1;
    TileDots d = {.x = x, .x_apart = registers * TILE_BYTES, .w = w, .steps = registers};
    d.w_apart = panels == 2 ? keys[at / PANEL + 1] - w : 0;
    zero_sums();
    multiply_near_blocks(&d, blocks, panels);
    store_blocks(&room->scores[0][at], SCORES_STRIDE, blocks, panels);
  }
}

// output [blocks * 16][head] += weights * values of a chunk.
static void add_values_in_tiles(long head, long length, long row, int blocks, TileRoom *room) {
  long across = TILE_CHUNK / TILE_INPUTS * TILE_BYTES;
  for (long first = 0; first < head; first += 2 * PANEL) {
    int panels = head - first > PANEL ? 2 : 1;
    TileDots d = {.x = (const char *)room->weights, .x_apart = across, .w_apart = across};
    d.w = (const char *)(room->values + first * TILE_CHUNK), d.steps = whole_tiles(length) / TILE_INPUTS;
    float *to = &room->output[row][first];
    load_blocks(to, OUTPUT_STRIDE, blocks, panels);
    multiply_near_blocks(&d, blocks, panels);
    store_blocks(to, OUTPUT_STRIDE, blocks, panels);
  }
}

// 2 to the v for v <= 0, relative error below 3e-6, of which bfloat16 keeps 4e-3. A polynomial of degree 4 on
// [-1/2, 1/2], fitted for the least largest relative error. Below -126 the result is 0.
INLINE vec power_of_two(vec v) {
  ivec tiny = v < splat(-126.0f);
  vec within = vmax(splat(-126.0f), v);  // in this order what is no number stays none
  vec shifted = within + 12582912.0f;  // 1.5 * 2^23 rounds to the nearest whole number, and has it in its last bits
  vec r = within - (shifted - 12582912.0f);
  vec p = r * 9.5701019e-3f + 5.5917862e-2f;
  p = p * r + 2.4024745e-1f;
  p = p * r + 6.9312181e-1f;
  p = p * r + 9.9999926e-1f;
  return (vec)(((ivec)p + ((ivec)shifted << 23)) & ~tiny);
}

// Scores as the softmax takes them where a factor is not enough: scaled by the keys' own scales, or capped.
static void scale_scores(const Attention *a, const Span *span, long kv_head, long chunk, long length, float *scores) {
  for (long t = 0; t < length; t += LANES) {
    vec by = splat(a->scale);
    if (a->scales) by *= scales_of(a, span, chunk + t, kv_head);
    store(scores + t, load(scores + t) * by);
  }
  if (a->softcap > 0)
    for (long t = 0; t < length; t++) scores[t] = a->softcap * tanhf(scores[t] / a->softcap);
}

// What query `i` sees of a chunk: tokens `first` to `end`, and `vectors_end` for whole vectors; 0 if it sees nothing.
typedef struct {
  long first, end, vectors_end;
} Seeing;

INLINE Seeing seeing_of(const Attention *a, long chunk, long length, long position) {
  long first = a->window && position - a->window + 1 > chunk ? position - a->window + 1 - chunk : 0;
  long end = least(length, position + 1 - chunk);
  return (Seeing){first, end, end <= first ? 0 : (end + LANES - 1) / LANES * LANES};
}

// The largest score of query `i` in a chunk, after what it does not see has been masked.
static float most_of_scores(const Attention *a, const Span *span, long kv_head, long chunk, long length, Seeing seen, float *scores) {
  if (a->scales || a->softcap > 0 || a->scale <= 0) scale_scores(a, span, kv_head, chunk, length, scores);
  for (long t = 0; t < seen.first; t++) scores[t] = -INFINITY;
  for (long t = seen.end; t < seen.vectors_end; t++) scores[t] = -INFINITY;
  vec most = load(scores), other = most;
  long t = LANES;
  for (; t + LANES < seen.vectors_end; t += 2 * LANES) most = vmax(most, load(scores + t)), other = vmax(other, load(scores + t + LANES));
  if (t < seen.vectors_end) most = vmax(most, load(scores + t));
  return largest(vmax(most, other));
}

// Scores of query `i` become its weights, as the registers take them: exponentiated, shifted by the largest so far; zeros
// for what it does not see. Sums are kept up. A score that is no finite number makes the sums, and so the output, no
// numbers. Scores times `by`, and the largest, are in powers of two.
static void weigh_in_tiles(const Attention *a, const Span *span, long kv_head, long chunk, long length, Seeing seen, float by, float now, long i, TileRoom *room) {
  float *scores = room->scores[i % (2 * TILE_ROWS)], before = room->most[i];
  TiledRow to = row_in_tiles(room->weights, i % (2 * TILE_ROWS), TILE_CHUNK);
  for (long t = seen.vectors_end; t < whole_tiles(length); t += LANES) put(&to, t, splat(0));
  if (!seen.vectors_end) return;
  if (now < before) now = before;
  vec total = {};
  if (a->scales) {
    for (long t = 0; t < seen.vectors_end; t += LANES) {
      vec weight = power_of_two(load(scores + t) * by - now);
      total += weight;
      put(&to, t, weight * scales_of(a, span, chunk + t, a->kv_heads + kv_head));
    }
  } else {
    for (long t = 0; t < seen.vectors_end; t += LANES) {
      vec weight = power_of_two(load(scores + t) * by - now);
      total += weight;
      put(&to, t, weight);
    }
  }
  if (now > before) {
    float shrink = before == -INFINITY ? 0 : power_of_two(splat(before - now))[0];
    shrink_sums(room->output[i], &room->total[i], a->head, shrink);
    room->most[i] = now;
  }
  room->total[i] += sum(total);
}

// `weigh_in_tiles` for queries `row` to `end`. All largest scores are found before the first is needed: finding one is a
// chain of instructions that wait for each other, but those of several queries run beside each other.
static void weigh_queries(const Attention *a, const Span *span, long kv_head, long chunk, long length, long first_position, long group, long row, long end, TileRoom *room) {
  int is_plain = !a->scales && a->softcap <= 0 && a->scale > 0;
  float by = is_plain ? a->scale * 1.44269504f : 1.44269504f, most[2 * TILE_ROWS];  // log2(e)
  Seeing seen[2 * TILE_ROWS];
  for (long i = row; i < end; i++) {
    seen[i - row] = seeing_of(a, chunk, length, first_position + i / group);
    most[i - row] = seen[i - row].vectors_end ? most_of_scores(a, span, kv_head, chunk, length, seen[i - row], room->scores[i - row]) * by : 0;
  }
  for (long i = row; i < end; i++) weigh_in_tiles(a, span, kv_head, chunk, length, seen[i - row], by, most[i - row], i, room);
}

// As `attend`.
static void attend_in_tiles(const Attention *a, const Span *span, long first_head, long offset, long tokens, TileRoom *room) {
  long group = heads_at_once(a), queries = tokens * group, kv_head = first_head / (a->heads / a->kv_heads);
  shape_tiles(queries, TILE_ROWS);
  for (long i = 0; i < queries; i++) {
    long row = span->row + offset + i / group, head = first_head + i % group;
    TiledRow to = row_in_tiles(room->queries, i, a->head);
    if (a->halves) {
      const uint16_t *query = a->halves + (row * a->heads + head) * a->head;
      for (long d = 0; d < a->head; d += LANES) put(&to, d, widen(query + d));
    } else {
      const float *query = a->queries + row * a->query_stride + head * a->head;
      for (long d = 0; d < a->head; d += LANES) put(&to, d, load(query + d));
    }
    memset(room->output[i], 0, a->head * sizeof(float));
    room->most[i] = -INFINITY, room->total[i] = 0;
  }
  long first_position = span->position + offset, last = first_position + tokens - 1;
  long oldest = a->window ? first_position - a->window + 1 : 0;
  for (long chunk = oldest < 0 ? 0 : oldest / TILE_CHUNK * TILE_CHUNK; chunk <= last; chunk += TILE_CHUNK) {
    long length = last + 1 - chunk < TILE_CHUNK ? (last - chunk) / PANEL * PANEL + PANEL : TILE_CHUNK;
    const char *keys[TILE_CHUNK / PANEL];
    find_keys(a, span, kv_head, chunk, length, room, keys);
    gather_values(a, span, kv_head, chunk, length, room);
    for (long row = 0; row < queries; row += 2 * TILE_ROWS) {
      int blocks = queries - row > TILE_ROWS ? 2 : 1;
      score_in_tiles(keys, a->head, length, row, blocks, room);
      weigh_queries(a, span, kv_head, chunk, length, first_position, group, row, least(queries, row + 2 * TILE_ROWS), room);
      add_values_in_tiles(a->head, length, row, blocks, room);
    }
  }
  for (long i = 0; i < queries; i++)
    write_output(a, span->row + offset + i / group, first_head + i % group, room->output[i], room->total[i]);
}
