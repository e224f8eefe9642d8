// The activation of a gated MLP (Shazeer 2020, "GLU Variants Improve Transformer"): SiLU or tanh-approximated GELU.
#pragma once
#include "vector.h"

// act(gate) * up.
INLINE vec gated(vec gate, vec up, int gelu) {
  vec within = gelu ? (gate + gate * gate * gate * 0.044715f) * 1.59576912f : gate;  // 2 sqrt(2 / pi): GELU(x) = x sigmoid(this)
  ivec negative = within < splat(0);
  vec small = vexp(-(vec)((ivec)within & 0x7fffffff));  // e to the minus |x|: no overflow
  vec high = 1.0f / (1.0f + small), low = small * high;
  vec sigmoid = (vec)(((ivec)low & negative) | ((ivec)high & ~negative));
  return gate * sigmoid * up;
}
