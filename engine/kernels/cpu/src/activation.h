// The activation of a gated MLP (Shazeer 2020, "GLU Variants Improve Transformer"): SiLU or tanh-approximated GELU.
#pragma once
#include "vector.h"

// 1 / v for v >= 1, relative error below 2e-7. With AVX-512 without a division, for which the processor's units wait.
INLINE vec inverse(vec v) {
#if defined(__AVX512F__)
  vec nearly = (vec)_mm512_rcp14_ps((__m512)v);
  return nearly + nearly * (1.0f - v * nearly);
#else
  return 1.0f / v;
#endif
}

// act(gate) * up, where act(x) is x / (1 + e^-x). Its exponential is 2 to a power, by a polynomial of degree 5 from whole
// number to whole number: relative error 2e-7, and that of rounding the power, up to 4e-6 of gates near -80.
INLINE vec gated(vec gate, vec up, int gelu) {
  gate = vmax(splat(gelu ? -10.0f : -87.0f), gate);  // below, act is nearly 0 and would overflow the exponential; no number stays none
  vec within = gelu ? (gate + gate * gate * gate * 0.044715f) * 1.59576912f : gate;  // 2 sqrt(2 / pi): GELU(x) = x sigmoid(this)
  vec power = within * -1.44269504f;  // log2(e)
  vec r = above_whole(power);
  vec p = r * 1.870535094e-3f + 9.011452952e-3f;
  p = p * r + 5.580175658e-2f;
  p = p * r + 2.401648703e-1f;
  p = p * r + 6.931512449e-1f;
  p = p * r + 1.0f;
  return gate * inverse(1.0f + times_power(p, power)) * up;
}
