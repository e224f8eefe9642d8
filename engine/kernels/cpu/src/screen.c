// The largest logit without reading all of the output layer: what greedy answers need, and nothing else.
//
// A copy of the output layer in eight bits gives each logit roughly, with a bound on how far off it is. Only panels in which
// a logit may be the largest are then multiplied from the weights themselves, as ever, to the bit.
//
// Let v be what eight bits hold of the weights w of an output, and y of the inputs x. By Cauchy and Schwarz
// |wx - vy| <= |w - v||x| + |v||x - y|; what sums in float32 may be off themselves is part of `errors`.
#include <stdatomic.h>

#include "attention.c"

#define SPARE 1.0001f  // for the rounding of the bounds themselves

typedef struct {
  Linear numbers;  // no weights: there is no copy
  const float *errors;  // [panels][16] |w - v|, and what rounding adds; infinite after the last output
  const float *sizes;  // [panels][16] |v|
} Screen;

// Of one row.
typedef struct {
  float size, error;  // |x|, |x - y|
  _Atomic float best;  // the largest of the least that its logits may be
  _Atomic uint64_t found;  // the largest logit so far, as rank_of has it
} Seen;

#define BLOCK 16  // panels whose rough logits are looked at while they are in the first cache
#define SEEN_FLOATS ((long)(sizeof(Seen) / sizeof(float)))

// A row as products with `type` read it, to its place among the codes.
static void see_row(float *x, int type, void *codes, Seen *seen, long rows, long row, long inputs) {
  float size = 0, error = 0;
  for (long group = 0; group < inputs; group += GROUP) {
    float top = 0;
    for (long i = group; i < group + GROUP; i++) {
      if (in_pairs(type)) x[i] = widen1(narrow1(x[i]));
      top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
      size += x[i] * x[i];
    }
    if (top > 0 && top < 1e-15f) size = INFINITY;  // squares of such numbers are lost: no bound
    float by = top > 1e-30f ? 127 / top : 0, scale = top / 127;
    for (long i = group; i < group + GROUP; i++) {
      float off = x[i] - rintf(x[i] * by) * scale;
      error += off * off;
    }
  }
  code_row(x, codes, rows, row, inputs);
  seen[row].size = sqrtf(size) * SPARE, seen[row].error = sqrtf(error) * SPARE;
  atomic_store_explicit(&seen[row].best, -INFINITY, memory_order_relaxed);
}

INLINE vec off_by(const Screen *screen, const Seen *seen, long output) {
  return (load(screen->errors + output) * seen->size + load(screen->sizes + output) * seen->error) * SPARE;
}

static void raise_best(Seen *seen, float least) {
  float best = atomic_load_explicit(&seen->best, memory_order_relaxed);
  while (least > best && !atomic_compare_exchange_weak(&seen->best, &best, least)) continue;
}

// Some panels of whole numbers as a matrix of their own.
INLINE Linear coded_part(const Linear *all, long panel, long count) {
  Linear part = *all;
  part.weights = (const char *)all->weights + panel * coded_panel_bytes(all->inputs, INT8);
  part.scales = (const float *)all->scales + panel * PANEL;
  part.outputs = count * PANEL;
  return part;
}

INLINE vec no_number_is_infinite(vec value) {
  ivec none = value != value;
  return (vec)(((ivec)splat(INFINITY) & none) | ((ivec)value & ~none));
}

// The panels of thread `me`, roughly: into `most`, [rows][panels], the most that a logit of each may be.
static void screen_roughly(const Screen *screen, const void *codes, Seen *seen, float *most, long rows, int me, int threads) {
  long panels = panels_of(&screen->numbers), end = panels * (me + 1) / threads;
  float logits[rows * BLOCK * PANEL];
  for (long panel = panels * me / threads, count; panel < end; panel += count) {
    count = least(BLOCK, end - panel);
    Linear part = coded_part(&screen->numbers, panel, count);
    Product rough = {.linear = &part, .x = codes, .y = logits, .rows = rows};
    multiply_coded(&rough, 0, count);
    for (long row = 0; row < rows; row++) {
      vec lower = splat(-INFINITY);
      for (long at = 0; at < count; at++) {
        vec upper = splat(-INFINITY);
        for (long n = at * PANEL; n < (at + 1) * PANEL; n += LANES) {
          vec logit = load(logits + row * part.outputs + n), off = off_by(screen, seen + row, panel * PANEL + n);
          upper = vmax(no_number_is_infinite(logit + off), upper);
          lower = vmax(logit - off, lower);
        }
        most[row * panels + panel + at] = largest(upper);
      }
      raise_best(&seen[row], largest(lower));
    }
  }
}

// Larger logits have larger ranks, and of equals the first one. No number ranks with infinity.
INLINE uint64_t rank_of(float logit, long output) {
  uint32_t bits;
  float value = logit == logit ? logit + 0.0f : INFINITY;  // -0 becomes 0, its equal
  memcpy(&bits, &value, 4);
  return (uint64_t)(bits >> 31 ? ~bits : bits | 0x80000000) << 32 | (UINT32_MAX - (uint32_t)output);
}

// The output of that rank; -1 if its logit was no finite number.
static long output_of(uint64_t rank) {
  uint32_t bits = rank >> 32;
  return bits > 0x007fffff && bits < 0xff800000 ? (long)(UINT32_MAX - (uint32_t)rank) : -1;
}

// Among `count` logits of a row, of which the first is that of output `first`.
static void find_largest(Seen *seen, const float *logits, long first, long count) {
  vec most = splat(-INFINITY);
  long n = 0;
  for (; n + LANES <= count; n += LANES) most = vmax(no_number_is_infinite(load(logits + n)), most);
  float top = largest(most);
  for (; n < count; n++)
    if (!(logits[n] <= top)) top = logits[n] == logits[n] ? logits[n] : INFINITY;
  for (n = 0; n < count - 1 && logits[n] < top;) n++;
  uint64_t largest = rank_of(top, first + n), found = atomic_load_explicit(&seen->found, memory_order_relaxed);
  while (largest > found && !atomic_compare_exchange_weak(&seen->found, &found, largest)) continue;
}

// After all threads have done that; `x`: the inputs of the output layer. Gives how many panels were multiplied in full.
static long screen_exactly(Seen *seen, const Linear *head, const void *x, const float *most, long rows, int me, int threads) {
  long panels = panels_of(head), multiplied = 0;
  float logits[rows * PANEL];
  for (long panel = panels * me / threads; panel < panels * (me + 1) / threads; panel++) {
    int may_win = 0;
    for (long row = 0; row < rows; row++)
      may_win |= !(most[row * panels + panel] < atomic_load_explicit(&seen[row].best, memory_order_relaxed));
    if (!may_win) continue;
    Linear part = *head;
    part.weights = (const char *)head->weights + panel * panel_bytes(head->inputs, head->type);
    part.outputs = PANEL;
    Product exact = {.linear = &part, .x = x, .y = logits, .rows = rows};
    multiply_panels(&exact, 0, 1);
    for (long row = 0; row < rows; row++)
      find_largest(&seen[row], logits + row * PANEL, panel * PANEL, least(PANEL, head->outputs - panel * PANEL));
    multiplied++;
  }
  return multiplied;
}
