// The largest logit without reading all of the output layer: what greedy answers need, and nothing else.
//
// A copy of the output layer in eight bits gives each logit roughly, with a bound on how far off it is. Only panels in which
// a logit may be the largest are then multiplied from the weights themselves, as ever, to the bit; those of all others
// become minus infinity.
//
// Let v be what eight bits hold of the weights w of an output, and y of the inputs x. By Cauchy and Schwarz
// |wx - vy| <= |w - v||x| + |v||x - y|; what sums in float32 may be off themselves is part of `errors`.
#include "attention.c"

#define SPARE 1.0001f  // for the rounding of the bounds themselves

typedef struct {
  Linear numbers;  // no weights: there is no copy
  const float *errors;  // [outputs] |w - v|, and what rounding adds
  const float *sizes;  // [outputs] |v|
} Screen;

// Of one row, and the largest of the least that its logits may be.
typedef struct {
  float size, error;  // |x|, |x - y|
  _Atomic float best;
} Seen;

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

INLINE float off_by(const Screen *screen, const Seen *seen, long output) {
  return (screen->errors[output] * seen->size + screen->sizes[output] * seen->error) * SPARE;
}

static void raise_best(Seen *seen, float least) {
  float best = atomic_load_explicit(&seen->best, memory_order_relaxed);
  while (least > best && !atomic_compare_exchange_weak(&seen->best, &best, least)) continue;
}

// Whether one of the panel's logits may be the largest of a row. No number may be anything.
static int may_win(const Screen *screen, const Seen *seen, const float *logits, long rows, long first, long end) {
  long outputs = screen->numbers.outputs;
  for (long row = 0; row < rows; row++) {
    float best = atomic_load_explicit(&seen[row].best, memory_order_relaxed);
    int some = 0;
    for (long n = first; n < end; n++) some |= !(logits[row * outputs + n] + off_by(screen, seen + row, n) < best);
    if (some) return 1;
  }
  return 0;
}

// The panels of thread `me`, roughly, and what they say about the best.
static void screen_roughly(const Screen *screen, const void *codes, Seen *seen, float *logits, long rows, int me, int threads) {
  long outputs = screen->numbers.outputs, panels = (outputs + PANEL - 1) / PANEL;
  long from = panels * me / threads, to = panels * (me + 1) / threads, end = to * PANEL < outputs ? to * PANEL : outputs;
  Product rough = {&screen->numbers, codes, logits, rows, 0};
  multiply_coded(&rough, from, to);
  for (long row = 0; row < rows; row++) {
    float least = -INFINITY;
    for (long n = from * PANEL; n < end; n++) {
      float here = logits[row * outputs + n] - off_by(screen, seen + row, n);
      least = here > least ? here : least;
    }
    raise_best(&seen[row], least);
  }
}

// After all threads have done that. Gives how many panels were multiplied in full.
static long screen_exactly(const Screen *screen, const Seen *seen, const Product *exact, int me, int threads) {
  long outputs = screen->numbers.outputs, panels = (outputs + PANEL - 1) / PANEL, multiplied = 0;
  for (long index = panels * me / threads; index < panels * (me + 1) / threads; index++) {
    long first = index * PANEL, end = first + PANEL < outputs ? first + PANEL : outputs;
    if (may_win(screen, seen, exact->y, exact->rows, first, end)) {
      multiply_panels(exact, index, index + 1);
      multiplied++;
      continue;
    }
    for (long row = 0; row < exact->rows; row++)
      for (long n = first; n < end; n++) exact->y[row * outputs + n] = -INFINITY;
  }
  return multiplied;
}
