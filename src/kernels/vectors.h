/* SPDX-License-Identifier: BSD-3-Clause
 *
 * vectors.h: the vector type that every kernel source is written in, and the few operations the
 * operators of C lack. Only sources that the build compiles for each instruction set include it:
 * the width follows from the instruction set the compiler was told to use, and the element type
 * from ATTNI_REAL_IS_float or ATTNI_REAL_IS_double.
 */
#ifndef ATTNI_KERNELS_VECTORS_H
#define ATTNI_KERNELS_VECTORS_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <attention/tensor.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(ATTNI_VECTOR_BYTES)
#define VECTOR_BYTES ATTNI_VECTOR_BYTES
#elif defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(ATTNI_REAL_IS_float)
typedef float real;
typedef int32_t integer;
typedef uint32_t unsigned_integer;
#define REAL_DTYPE ATTN_DTYPE_FLOAT32
#define REAL_NAME float32
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUND_MAGIC \
    0x1.8p23F /* adding it rounds |x| < 2^22 to an integer, found in the low bits of the sum */
#define LN2_HIGH 0x1.62e4p-1F   /* 15 bits of ln 2, so that n * LN2_HIGH is exact for |n| < 2^8 */
#define LN2_LOW 0x1.7f7d1cp-20F /* ln 2 - LN2_HIGH */
#define LOWEST_ARGUMENT \
    (-0x1.5d58ap6F) /* about ln(2^-126): exp below it is no normal number and becomes 0 */
#define LARGEST FLT_MAX
#define TAYLOR_TERMS 8 /* r^9/9! < 2^-29 relative for |r| <= ln(2)/2 */
#else
typedef double real;
typedef int64_t integer;
typedef uint64_t unsigned_integer;
#define REAL_DTYPE ATTN_DTYPE_FLOAT64
#define REAL_NAME float64
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUND_MAGIC 0x1.8p52
#define LN2_HIGH 0x1.62e42fefp-1 /* 33 bits of ln 2 */
#define LN2_LOW 0x1.473de6af278edp-34
#define LOWEST_ARGUMENT (-0x1.6232bdd7abcd2p9) /* ln(2^-1022) */
#define LARGEST DBL_MAX
#define TAYLOR_TERMS 14 /* r^15/15! < 2^-62 relative */
#endif

#define LOG2_E ((real)0x1.71547652b82fep0)

typedef real vector __attribute__((vector_size(VECTOR_BYTES)));
typedef integer vector_mask __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned_integer vector_number __attribute__((vector_size(VECTOR_BYTES)));

/* A vector, or an element, somewhere in memory. (Compilers keep numbers in registers better than
 * with memcpy.) */
typedef real vector_in_memory __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));
typedef real real_in_memory __attribute__((aligned(1), may_alias));

enum { LANES = VECTOR_BYTES / sizeof(real) };

#define INLINE static inline __attribute__((always_inline))

INLINE vector load(const real *from) {
    return *(const vector_in_memory *)from;
}

INLINE real load_scalar(const real *from) {
    return *(const real_in_memory *)from;
}

INLINE void store(real *to, vector x) {
    *(vector_in_memory *)to = x;
}

INLINE void store_part(real *to, vector x, int64_t n) {
    memcpy(to, &x, (size_t)n * sizeof(real));
}

/* Subtracting +0 keeps the sign of -0, which adding it would lose. */
INLINE vector broadcast(real x) {
    return x - (vector){0};
}

/* mask ? a : b, lane by lane; a mask's lanes are all ones or all zeros. Compilers do not make the
 * one instruction of it that there is. */
INLINE vector choose(vector_mask mask, vector a, vector b) {
#if VECTOR_BYTES == 64 && defined(__AVX512DQ__) && defined(ATTNI_REAL_IS_float)
    return (vector)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), (__m512)b, (__m512)a);
#elif VECTOR_BYTES == 32 && defined(ATTNI_REAL_IS_float)
    return (vector)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (vector)((mask & (vector_mask)a) | (~mask & (vector_mask)b));
#endif
}

#if VECTOR_BYTES == 32
/* All ones in the lanes below n. */
INLINE vector_mask lanes_below(int64_t n) {
#if defined(ATTNI_REAL_IS_float)
    const vector_mask lane = {0, 1, 2, 3, 4, 5, 6, 7};
#else
    const vector_mask lane = {0, 1, 2, 3};
#endif
    return lane < (integer)n - (vector_mask){0};
}
#endif

/* The first n < LANES elements; the other lanes are `fill`. What a mask leaves out is not touched;
 * a copy by way of the stack waits for its own stores. */
INLINE vector load_part(const real *from, int64_t n, real fill) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__) && defined(ATTNI_REAL_IS_float)
    return (vector)_mm512_mask_loadu_ps((__m512)broadcast(fill), (__mmask16)((1U << n) - 1U), from);
#elif VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (vector)_mm512_mask_loadu_pd((__m512d)broadcast(fill), (__mmask8)((1U << n) - 1U), from);
#elif VECTOR_BYTES == 32
    const vector_mask mask = lanes_below(n);
#if defined(ATTNI_REAL_IS_float)
    const vector x = (vector)_mm256_maskload_ps(from, (__m256i)mask);
#else
    const vector x = (vector)_mm256_maskload_pd(from, (__m256i)mask);
#endif
    return fill == 0 ? x : choose(mask, x, broadcast(fill));
#else
    real lanes[LANES];
    for (int64_t i = 0; i < LANES; ++i) {
        lanes[i] = fill;
    }
    memcpy(lanes, from, (size_t)n * sizeof(real));
    return load(lanes);
#endif
}

/* x, but 0 in the lanes where a equals b: a comparison and a move where masks have registers. */
INLINE vector unless_equal(vector a, vector b, vector x) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__) && defined(ATTNI_REAL_IS_float)
    return (vector)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ),
                                       (__m512)x);
#else
    return choose(a == b, broadcast(0), x);
#endif
}

INLINE vector absolute(vector x) {
    const vector_mask sign = (vector_mask)broadcast((real)-0.0);
    return (vector)((vector_mask)x & ~sign);
}

#if VECTOR_BYTES == 64 && defined(__AVX512F__) && defined(ATTNI_REAL_IS_float)
#define TWO_LANEWISE(name, a, b) ((vector)_mm512_##name##_ps((__m512)(a), (__m512)(b)))
#elif VECTOR_BYTES == 64 && defined(__AVX512F__)
#define TWO_LANEWISE(name, a, b) ((vector)_mm512_##name##_pd((__m512d)(a), (__m512d)(b)))
#elif VECTOR_BYTES == 32 && defined(ATTNI_REAL_IS_float)
#define TWO_LANEWISE(name, a, b) ((vector)_mm256_##name##_ps((__m256)(a), (__m256)(b)))
#elif VECTOR_BYTES == 32
#define TWO_LANEWISE(name, a, b) ((vector)_mm256_##name##_pd((__m256d)(a), (__m256d)(b)))
#elif VECTOR_BYTES == 16 && defined(__SSE2__) && defined(ATTNI_REAL_IS_float)
#define TWO_LANEWISE(name, a, b) ((vector)_mm_##name##_ps((__m128)(a), (__m128)(b)))
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
#define TWO_LANEWISE(name, a, b) ((vector)_mm_##name##_pd((__m128d)(a), (__m128d)(b)))
#endif

/* The larger of a and b lane by lane, and the smaller; b where either is NaN (on some CPUs NaN
 * instead, which their users allow). Compilers find the instructions for scalars only. */
INLINE vector larger(vector a, vector b) {
#if defined(TWO_LANEWISE)
    return TWO_LANEWISE(max, a, b);
#else
    return choose(a > b, a, b);
#endif
}

INLINE vector smaller(vector a, vector b) {
#if defined(TWO_LANEWISE)
    return TWO_LANEWISE(min, a, b);
#else
    return choose(a < b, a, b);
#endif
}

/* x + y, but where both are finite and their sum is not, the largest number of its sign. Halves do
 * not overflow, so that their sum tells whether both are finite. */
INLINE vector finite_sum(vector x, vector y) {
    const vector sum = x + y;
    const vector half = (real)0.5 * x + (real)0.5 * y;
    const vector limited = smaller(larger(sum, broadcast(-LARGEST)), broadcast(LARGEST));
    return choose(absolute(half) < broadcast((real)INFINITY), limited, sum);
}

/* Before a loop of a few constant iterations whose variables must stay in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define JOIN_TABLE_WORDS(family, isa, real_name) attni_##family##_##isa##_##real_name
#define EXPANDED_TABLE_NAME(family, isa, real_name) JOIN_TABLE_WORDS(family, isa, real_name)

/* The name of the table of a family of kernels that this compilation defines. */
#define TABLE_NAME(family) EXPANDED_TABLE_NAME(family, ATTNI_ISA, REAL_NAME)

#endif
