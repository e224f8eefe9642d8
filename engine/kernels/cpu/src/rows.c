// Norms and activations of a step's rows, on their way to products.
#include "model.h"

INLINE void share(long count, int me, int threads, long *from, long *to) {
  *from = count * me / threads, *to = count * (me + 1) / threads;
}

// How the rows of a step are shared out. With many rows a thread takes some after the other, and does all with them that is
// between two attentions: what it has written is in its own cache, and a thread whose core is slow, because others use it too,
// takes fewer. With few rows, threads share channels and outputs.
typedef struct {
  int me, threads;
  long rows;
  long first, end;  // the thread's own rows; 0, 0 if there are few
} Part;

#define LEAST_OWN_ROWS 128  // of a thread
#define FEWER_OWN_ROWS 256  // that are taken at once, if all threads get as many
#define MORE_OWN_ROWS 512  // if there are very many
#define OWN_BLOCK (2 * TILE_ROWS)  // rows that meet a panel at once

// Rows that a thread takes at once as its own; 0 if there are few.
static long own_rows(const Model *m, long rows, int threads) {
  if (!TILES || m->coded || !in_pairs(m->type) || rows < threads * LEAST_OWN_ROWS) return 0;
  long fair = (rows + threads - 1) / threads, most = threads == 1 || fair >= 4 * MORE_OWN_ROWS ? MORE_OWN_ROWS : least(fair, FEWER_OWN_ROWS);
  long times = (rows + most * threads - 1) / (most * threads) * threads;  // as many for each, if all are equally fast
  return (rows + times * OWN_BLOCK - 1) / (times * OWN_BLOCK) * OWN_BLOCK;
}

// The next `each` rows, of which `taken` counts how many times they were taken; 0 if there are none left.
INLINE int take_rows(Part *part, long each, long *taken) {
  part->first = each * __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);
  part->end = least(part->first + each, part->rows);
  return part->first < part->rows;
}

// The thread's own rows, or its share of them.
INLINE void rows_of(const Part *part, long *from, long *to) {
  *from = part->first, *to = part->end;
  if (!part->end) share(part->rows, part->me, part->threads, from, to);
}

// Channels `from` to `to` of one tile's rows. Rows of a tile lie side by side, so threads share channels out, not rows:
// else two of them would write to the same cache lines.
typedef struct {
  long row, rows, from, to;
} Piece;

// The next piece of channels `*at` to `end`, counted through all tiles, in vectors.
INLINE int next_piece(long rows, long width, long *at, long end, Piece *piece) {
  if (*at >= end) return 0;
  long vectors = width / LANES, tile = *at / vectors, from = *at % vectors, to = least(vectors, from + end - *at);
  long row = tile_start(rows, tile);
  *piece = (Piece){row, tile_start(rows, tile + 1) - row, from * LANES, to * LANES};
  *at += to - from;
  return 1;
}

// One over the root mean square (Zhang and Sennrich 2019).
INLINE float scale_of(const float *x, long size, float epsilon) {
  vec squares[4] = {};  // a single sum would wait for itself
  long i = 0;
  for (; i + 4 * LANES <= size; i += 4 * LANES)
    for (int n = 0; n < 4; n++) squares[n] += load(x + i + n * LANES) * load(x + i + n * LANES);
  for (; i < size; i += LANES) squares[0] += load(x + i) * load(x + i);
  return 1 / sqrtf(sum((squares[0] + squares[1]) + (squares[2] + squares[3])) / size + epsilon);
}

static void normalise(const float *x, const float *weight, float *y, long size, float epsilon) {
  float by = scale_of(x, size, epsilon);
  for (long i = 0; i < size; i += LANES) store(y + i, load(x + i) * by * load(weight + i));
}

// Into a matrix that a product reads; without weights the row as it is.
INLINE void normalise_part(const float *x, const float *weight, const TiledRow *to, float by, long from, long end) {
  for (long i = from; i < end; i += LANES) put(to, i, weight ? load(x + i) * by * load(weight + i) : load(x + i));
}

static void normalise_row(const Model *m, const float *x, const float *weight, float *y, long rows, long row) {
  float by = weight ? scale_of(x, m->hidden, m->epsilon) : 1, plain[m->coded ? m->hidden : 1];
  TiledRow to = m->coded ? plain_row(plain, 0, m->hidden) : tiled_row(y, rows, row, m->hidden, in_pairs(m->type));
  normalise_part(x, weight, &to, by, 0, m->hidden);
  if (m->coded) code_row(plain, y, rows, row, m->hidden);
}

static void normalise_rows(const Model *m, const float *x, const float *weight, float *y, const Part *part) {
  long from, to, hidden = m->hidden, rows = part->rows;
  if (m->coded || part->end) {
    rows_of(part, &from, &to);
    for (long row = from; row < to; row++) normalise_row(m, x + row * hidden, weight, y, rows, row);
    return;
  }
  share(tiles(rows) * (hidden / LANES), part->me, part->threads, &from, &to);
  for (Piece piece; next_piece(rows, hidden, &from, to, &piece);)
    for (long row = piece.row; row < piece.row + piece.rows; row++) {
      float by = weight ? scale_of(x + row * hidden, hidden, m->epsilon) : 1;
      TiledRow tiled = tiled_row(y, rows, row, hidden, in_pairs(m->type));
      normalise_part(x + row * hidden, weight, &tiled, by, piece.from, piece.to);
    }
}

// x + normalised y, for the families that norm what a block adds.
static void add_normalised(float *x, const float *y, const float *weight, long size, float epsilon, const Part *part) {
  long from, to;
  rows_of(part, &from, &to);
  for (long row = from; row < to; row++) {
    const float *in = y + row * size;
    float by = scale_of(in, size, epsilon);
    for (long i = 0; i < size; i += LANES)
      store(x + row * size + i, load(x + row * size + i) + load(in + i) * by * load(weight + i));
  }
}

// Weights of output `token` of a matrix whose groups have minimums.
static void look_up(const Linear *table, long token, float *to, float by) {
  long panel = token / PANEL, lane = token % PANEL, groups = table->inputs / GROUP, halves = in_halves(table->type);
  const char *panel_numbers = (const char *)table->weights + panel * coded_panel_bytes(table->inputs, table->type);
  const uint16_t *scales = (const uint16_t *)table->scales + panel * groups * scales_per_group(table->type);
  long first = lane / LANES * LANES;
  for (long group = 0; group < groups; group++, scales += scales_per_group(table->type), to += GROUP) {
    const uint8_t *numbers = (const uint8_t *)panel_numbers + group * coded_panel_bytes(GROUP, table->type) + lane * 4;
    float scale = widen_float16(scales + first)[lane - first], minimum = widen_float16(scales + PANEL + first)[lane - first];
    for (long i = 0; i < GROUP; i++) {
      long word = i / 4;
      int number = halves ? numbers[word / 2 * PANEL * 4 + i % 4] >> 4 * (word % 2) & 15 : numbers[word * PANEL * 4 + i % 4];
      to[i] = (number * scale + minimum) * by;
    }
  }
}

static void embed(const Model *m, const Step *s, float *stream, const Part *part) {
  long from, to;
  rows_of(part, &from, &to);
  for (long row = from; row < to; row++) {
    if (!m->embedding) {
      look_up(&m->head_weights, s->tokens[row], stream + row * m->hidden, m->embedding_scale);
      continue;
    }
    size_t at = (size_t)s->tokens[row] * m->hidden;
    for (long i = 0; i < m->hidden; i += LANES) {
      vec value = m->type == BF16 ? widen((const uint16_t *)m->embedding + at + i) : load((const float *)m->embedding + at + i);
      store(stream + row * m->hidden + i, value * m->embedding_scale);
    }
  }
}

// act(gate) * up of a row: first all gates, then all ups.
INLINE void activate_part(const Model *m, const float *gate, const TiledRow *to, long from, long end) {
  const float *up = gate + m->inner;
  for (long i = from; i < end; i += LANES) put(to, i, gated(load(gate + i), load(up + i), m->gelu));
}

// inner = act(gate) * up; `gates` has both, [rows][2 * inner].
static void activate(const Model *m, const float *gates, float *inner, long rows, int me, int threads) {
  long from, to, width = m->inner;
  if (m->coded) {
    share(rows, me, threads, &from, &to);
    float plain[width];
    TiledRow whole = plain_row(plain, 0, width);
    for (long row = from; row < to; row++) {
      activate_part(m, gates + row * 2 * width, &whole, 0, width);
      code_row(plain, inner, rows, row, width);
    }
    return;
  }
  share(tiles(rows) * (width / LANES), me, threads, &from, &to);
  for (Piece piece; next_piece(rows, width, &from, to, &piece);)
    for (long row = piece.row; row < piece.row + piece.rows; row++) {
      TiledRow tiled = tiled_row(inner, rows, row, width, in_pairs(m->type));
      activate_part(m, gates + row * 2 * width, &tiled, piece.from, piece.to);
    }
}

static void code_rows(const float *x, float *codes, long rows, long width, int me, int threads) {
  long from, to;
  share(rows, me, threads, &from, &to);
  for (long row = from; row < to; row++) code_row(x + row * width, codes, rows, row, width);
}
