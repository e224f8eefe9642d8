// Vectors as wide as a register of the machine: the compiler keeps wider ones in memory.
#pragma once
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Whether the processor multiplies pairs of bfloat16: twice the products of float32. What meets bfloat16 weights is then
// rounded to bfloat16 itself; sums stay float32.
#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__)
#define HALVES 1
#else
#define HALVES 0
#endif

// Registers of whole matrices: those of the processor, or the same in C (tiles.h). engine/kernels/cpu/tiles.py chooses, because
// the operating system must permit the processor's.
#define HARDWARE 1
#define EMULATED 2
#ifndef TILES
#define TILES 0
#endif
#define PAIRS (HALVES || TILES)  // whether products take pairs of bfloat16

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4  // SSE, NEON
#endif
#define BYTES (4 * LANES)
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(BYTES)));
typedef int32_t ivec __attribute__((vector_size(BYTES)));
typedef float vec_u __attribute__((vector_size(BYTES), aligned(4)));     // from any address
typedef int32_t ivec_u __attribute__((vector_size(BYTES), aligned(4)));  // from any address
typedef uint16_t half_u __attribute__((vector_size(BYTES / 2), aligned(2)));  // as many bfloat16
typedef int8_t int8_u __attribute__((vector_size(LANES), aligned(1)));  // as many numbers of one byte
typedef uint8_t uint8_u __attribute__((vector_size(LANES), aligned(1)));

// Of weights, and of keys and values, as library.py numbers them.
enum { F32 = 0, BF16 = 1, INT8 = 2, FP8 = 3, INT4 = 4, GROUPED4 = 5, GROUPED8 = 6 };

INLINE vec load(const float *from) { return *(const vec_u *)from; }
INLINE void store(float *to, vec value) { *(vec_u *)to = value; }
// Past the caches, where a vector is a line of them: else, or in part of one, a plain store. Nobody else may read what was
// stored so before `order_stores_past`.
INLINE void store_past(float *to, vec value) {
#if defined(__AVX512F__)
  if ((uintptr_t)to % BYTES == 0) {
    _mm512_stream_ps(to, (__m512)value);
    return;
  }
#endif
  store(to, value);
}
INLINE void order_stores_past(void) {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}
INLINE vec splat(float value) { return (vec){} + value; }

// Two bfloat16 lie in each 32-bit lane; a bfloat16 is the upper half of a float.
INLINE vec lower(ivec pairs) { return (vec)(pairs << 16); }
INLINE vec upper(ivec pairs) { return (vec)(pairs & (int32_t)0xffff0000); }

INLINE vec widen(const uint16_t *from) { return (vec)(__builtin_convertvector(*(const half_u *)from, ivec) << 16); }

// float16, as IEEE 754 has it.
INLINE vec widen_float16(const uint16_t *from) {
#if defined(__AVX512F__)
  return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__AVX__) && defined(__F16C__)
  return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
  ivec bits = __builtin_convertvector(*(const half_u *)from, ivec), magnitude = bits & 0x7fff;
  ivec normal = (magnitude << 13) + (112 << 23);
  normal += (112 << 23) & (magnitude >= 0x7c00);  // infinity, and what is no number
  ivec tiny = (ivec)(__builtin_convertvector(magnitude, vec) * 5.9604645e-8f);  // 2^-24
  ivec is_tiny = magnitude < 0x400;
  return (vec)((tiny & is_tiny) | (normal & ~is_tiny) | ((bits & 0x8000) << 16));
#endif
}

INLINE float widen1(uint16_t value) {
  uint32_t bits = (uint32_t)value << 16;
  float result;
  memcpy(&result, &bits, 4);
  return result;
}

// To the nearest, ties to even, as torch rounds; a NaN stays one.
INLINE uint16_t narrow1(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if (value != value) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// As many bfloat16, likewise.
INLINE half_u narrow(vec value) {
  ivec bits = (ivec)value, none = value != value;
  ivec upper = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector((upper & ~none) | (0x7fc0 & none), half_u);
}

INLINE long least(long a, long b) { return a < b ? a : b; }

// Halves onto halves, until one lane is left.
#if LANES == 16
#define FOLD(v, PAIR)                                                                             \
  v = PAIR(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
  v = PAIR(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
  v = PAIR(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
  v = PAIR(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
#elif LANES == 8
#define FOLD(v, PAIR)                                                     \
  v = PAIR(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));     \
  v = PAIR(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));     \
  v = PAIR(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
#else
#define FOLD(v, PAIR)                                         \
  v = PAIR(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));     \
  v = PAIR(v, __builtin_shufflevector(v, v, 1, 0, 3, 2));
#endif
#define PLUS(a, b) ((a) + (b))
INLINE float sum(vec v) {
  FOLD(v, PLUS)
  return v[0];
}
INLINE ivec higher(ivec a, ivec b) {
  ivec more = a > b;
  return (a & more) | (b & ~more);
}
INLINE int32_t added_up(ivec v) {
  FOLD(v, PLUS)
  return v[0];
}
INLINE int32_t highest(ivec v) {
  FOLD(v, higher)
  return v[0];
}
INLINE float float_of(int32_t bits) {
  float result;
  memcpy(&result, &bits, 4);
  return result;
}
INLINE float largest(vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#endif
  float most = v[0];
  for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
  return most;
}
// a where it is larger, else b: so what is no number in b stays, and in a does not.
INLINE vec vmax(vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#endif
  ivec more = a > b;
  return (vec)(((ivec)a & more) | ((ivec)b & ~more));
}

// Whether any lane is above `limit`.
INLINE int any_above(vec v, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
#else
  return largest(v) > limit;
#endif
}

// v less the whole number below it, and x (1 to 2) times two to that number, v at most 127. Where that would be too small to
// be normal, about 0. What is no number stays none.
#if defined(__AVX512F__) && defined(__AVX512DQ__)
INLINE vec above_whole(vec v) { return (vec)_mm512_reduce_ps((__m512)v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE vec times_power(vec x, vec v) { return (vec)_mm512_scalef_ps((__m512)x, (__m512)v); }
#else
INLINE vec whole_below(vec v) {
  vec nearest = (v + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23 rounds to the nearest whole number
  return nearest - (vec)((ivec)splat(1.0f) & (nearest > v));
}
INLINE vec above_whole(vec v) {
  v = vmax(splat(-126.0f), v);
  return v - whole_below(v);
}
INLINE vec times_power(vec x, vec v) {
  ivec tiny = v < splat(-126.0f);
  ivec exponent = __builtin_convertvector(whole_below(vmax(splat(-126.0f), v)), ivec) << 23;
  return (vec)(((ivec)x + exponent) & ~tiny);
}
#endif

// e to the v for v <= 0, relative error below 2e-7: Cody and Waite's reduction, a polynomial of degree 6 on
// [-ln2/2, ln2/2]. Below -87 the result is 0.
INLINE vec vexp(vec v) {
  ivec tiny = v < splat(-87.0f);
  v = vmax(splat(-87.0f), v);  // in this order what is no number stays none
  vec scaled = v * 1.44269504f;
  vec shifted = scaled + 12582912.0f;  // 1.5 * 2^23 rounds to the nearest whole number
  vec whole = shifted - 12582912.0f;
  vec r = v - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  ivec exponent = (__builtin_convertvector(whole, ivec) + 127) << 23;
  return (vec)((ivec)(p * (vec)exponent) & ~tiny);
}
