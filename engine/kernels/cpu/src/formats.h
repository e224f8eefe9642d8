// Keys and values in one byte each: int8, or float8 of four exponent and three mantissa bits (e4m3fn: Micikevicius et al.
// 2022). One scale per token and head, a bfloat16, by which the numbers are multiplied.
#pragma once
#include "vector.h"

#define LARGEST_INT8 127.0f
#define LARGEST_FP8 448.0f
#define SMALLEST_NORMAL_FP8 0.015625f  // 2^-6

INLINE int scaled(int type) { return type == INT8 || type == FP8; }
INLINE size_t width_of(int type) { return type == F32 ? 4 : type == BF16 ? 2 : 1; }

INLINE vec widen_int8(const int8_t *from) { return __builtin_convertvector(*(const int8_u *)from, vec); }

INLINE vec widen_fp8(const int8_t *from) {
  ivec bits = __builtin_convertvector(*(const uint8_u *)from, ivec), magnitude = bits & 0x7f;
  vec normal = (vec)((magnitude << 20) + (120 << 23));
  vec tiny = __builtin_convertvector(magnitude, vec) * 0.001953125f;  // 2^-9
  ivec is_tiny = magnitude < 8;
  ivec value = ((ivec)tiny & is_tiny) | ((ivec)normal & ~is_tiny);
  return (vec)(value | ((bits & 0x80) << 24));
}

INLINE float clamped(float value, float most) { return value > most ? most : value < -most ? -most : value; }

// To the nearest, ties to even. No number becomes 0; its scale then says that there was none.
INLINE int8_t to_int8(float value) { return value == value ? (int8_t)rintf(clamped(value, LARGEST_INT8)) : 0; }

INLINE int8_t to_fp8(float value) {
  if (value != value) return 0x7f;
  float clear = clamped(value, LARGEST_FP8), size = fabsf(clear);
  uint32_t bits;
  memcpy(&bits, &size, 4);
  uint32_t code = size < SMALLEST_NORMAL_FP8 ? (uint32_t)rintf(size * 512) : ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - (120 << 3);
  return (int8_t)(code | (signbit(clear) ? 0x80 : 0));
}

// The scale of the numbers x: what the largest of them is to be divided by.
INLINE uint16_t scale_for(const float *x, long count, int type) {
  float most = 0;
  for (long i = 0; i < count; i++)
    if (most == most && !(fabsf(x[i]) <= most)) most = fabsf(x[i]);  // a NaN stays
  return narrow1(most / (type == INT8 ? LARGEST_INT8 : LARGEST_FP8));
}
