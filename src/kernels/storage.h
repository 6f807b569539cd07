/* SPDX-License-Identifier: BSD-3-Clause
 *
 * storage.h: how elements of a storage type become a vector of float32, and back. For sources that
 * the build compiles for each instruction set and each storage type: ATTNI_STORED_IS_float32,
 * ATTNI_STORED_IS_bfloat16, ATTNI_STORED_IS_float16 or, only to be read, ATTNI_STORED_IS_int8;
 * float64 is stored as it is.
 *
 * Widening is exact for every number of a type, subnormal ones included, and quiets a NaN at most.
 * Narrowing rounds to nearest, ties to even; what is beyond the largest number becomes infinite and
 * a NaN stays one.
 */
#ifndef ATTNI_KERNELS_STORAGE_H
#define ATTNI_KERNELS_STORAGE_H

#include "kernels/vectors.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(ATTNI_STORED_IS_float32) || defined(ATTNI_REAL_IS_double)
#define STORED_IS_REAL
typedef real stored;
#define STORED_NAME REAL_NAME
#elif defined(ATTNI_STORED_IS_int8)
#include "kernels/integers.h"
#define STORED_IS_READ_ONLY
typedef int8_t stored;
#define STORED_NAME int8
#else
typedef uint16_t stored;
#if defined(ATTNI_STORED_IS_bfloat16)
#define STORED_NAME bfloat16
#else
#define STORED_NAME float16
#endif
#endif

typedef stored stored_in_memory __attribute__((aligned(1), may_alias));

INLINE stored stored_at(const stored *from) {
    return *(const stored_in_memory *)from;
}

INLINE void put_stored(stored *to, stored x) {
    *(stored_in_memory *)to = x;
}

#if defined(STORED_IS_REAL)

INLINE vector load_stored(const stored *from) {
    return load(from);
}

INLINE void store_stored(stored *to, vector x) {
    store(to, x);
}

INLINE real widened(stored x) {
    return x;
}

#elif defined(STORED_IS_READ_ONLY)

INLINE vector load_stored(const stored *from) {
    return load_bytes(from, 1);
}

INLINE real widened(stored x) {
    return x;
}

#else

typedef uint32_t vector_bits __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t vector_halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint16_t halves_in_memory
    __attribute__((vector_size(VECTOR_BYTES / 2), aligned(1), may_alias));

INLINE vector_halves load_halves(const stored *from) {
    return *(const halves_in_memory *)from;
}

INLINE void store_halves(stored *to, vector_halves x) {
    *(halves_in_memory *)to = x;
}

/* Compilers convert integers one by one. */
INLINE vector_bits bits_of(vector_halves x) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (vector_bits)_mm512_cvtepu16_epi32((__m256i)x);
#elif VECTOR_BYTES == 32
    return (vector_bits)_mm256_cvtepu16_epi32((__m128i)x);
#else
    return __builtin_convertvector(x, vector_bits);
#endif
}

INLINE vector_halves halves_of(vector_bits x) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (vector_halves)_mm512_cvtepi32_epi16((__m512i)x);
#else
    return __builtin_convertvector(x, vector_halves);
#endif
}

INLINE vector_bits choose_bits(vector_bits mask, vector_bits a, vector_bits b) {
    return (mask & a) | (~mask & b);
}

enum { SIGN_SHIFT = 16, HALF_MANTISSA_BITS = 10, HALF_SHIFT = MANTISSA_BITS - HALF_MANTISSA_BITS };
#define SIGN_BIT 0x80000000U
#define INFINITE 0x7f800000U /* the bits of infinity; those of NaN are above */

#if defined(ATTNI_STORED_IS_bfloat16)

/* A bfloat16 is the upper half of a float32. */
INLINE vector load_stored(const stored *from) {
    return (vector)(bits_of(load_halves(from)) << SIGN_SHIFT);
}

/* The nearest bfloat16, in the upper half; the lower is left over. */
INLINE vector_bits rounded_bfloat16(vector x) {
    const vector_bits bits = (vector_bits)x;
    const vector_bits is_nan = (vector_bits)((bits & ~SIGN_BIT) > INFINITE);
    const vector_bits rounded = bits + 0x7fffU + (bits >> SIGN_SHIFT & 1U);
    return choose_bits(is_nan, bits | 0x400000U, rounded);
}

INLINE void store_stored(stored *to, vector x) {
    store_halves(to, halves_of(rounded_bfloat16(x) >> SIGN_SHIFT));
}

#elif VECTOR_BYTES == 64 && defined(__AVX512F__)

INLINE vector load_stored(const stored *from) {
    return (vector)_mm512_cvtph_ps((__m256i)load_halves(from));
}

INLINE void store_stored(stored *to, vector x) {
    store_halves(to, (vector_halves)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
}

#elif VECTOR_BYTES == 32 && defined(__F16C__)

INLINE vector load_stored(const stored *from) {
    return (vector)_mm256_cvtph_ps((__m128i)load_halves(from));
}

INLINE void store_stored(stored *to, vector x) {
    store_halves(to, (vector_halves)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
}

#elif VECTOR_BYTES == 16 && defined(__aarch64__)

INLINE vector load_stored(const stored *from) {
    return (vector)vcvt_f32_f16((float16x4_t)load_halves(from));
}

INLINE void store_stored(stored *to, vector x) {
    store_halves(to, (vector_halves)vcvt_f16_f32((float32x4_t)x));
}

#else

/* The exponent's bias moves by 112, once more for infinity and NaN. A subnormal number, read as a
 * normal one, is by 2^-14 too large. */
INLINE vector load_stored(const stored *from) {
    const vector_bits half = bits_of(load_halves(from));
    const vector_bits moved = (half & 0x7fffU) << HALF_SHIFT;
    const vector_bits exponent = moved & (0x7c00U << HALF_SHIFT);
    const vector_bits is_special = (vector_bits)(exponent == 0x7c00U << HALF_SHIFT);
    const vector_bits is_small = (vector_bits)(exponent == 0);
    const vector_bits normal =
        moved + (112U << MANTISSA_BITS) + (is_special & 112U << MANTISSA_BITS);
    const vector small = (vector)(moved + (113U << MANTISSA_BITS)) - 0x1p-14F;
    return (vector)(choose_bits(is_small, (vector_bits)small, normal) | (half & 0x8000U)
                                                                            << SIGN_SHIFT);
}

/* Below 2^-14 a float16 is a multiple of 2^-24, to which adding 1/2 rounds; above, what is cut off
 * is rounded as an integer, a carry into the exponent being right. */
INLINE void store_stored(stored *to, vector x) {
    const vector_bits bits = (vector_bits)x;
    const vector_bits size = bits & ~SIGN_BIT;
    const vector_bits half_bits = (vector_bits)broadcast(0.5F);
    const vector_bits small = (vector_bits)((vector)size + 0.5F) - half_bits;
    const vector_bits moved = size - (112U << MANTISSA_BITS);
    const vector_bits normal = (moved + 0xfffU + (moved >> HALF_SHIFT & 1U)) >> HALF_SHIFT;
    const vector_bits is_small = (vector_bits)(size < 113U << MANTISSA_BITS);
    const vector_bits is_large = (vector_bits)(size >= 0x477ff000U); /* 65520 */
    const vector_bits is_nan = (vector_bits)(size > INFINITE);
    vector_bits half = choose_bits(is_small, small, normal);
    half = choose_bits(is_large, 0x7c00U + (is_nan & 0x200U), half);
    store_halves(to, halves_of(half | (bits & SIGN_BIT) >> SIGN_SHIFT));
}

#endif

/* Single numbers go the way of vectors, so that they are the same. */
INLINE real widened(stored x) {
    stored lanes[LANES] = {x};
    return load_stored(lanes)[0];
}

#endif

/* The first n < LANES elements; the other lanes are 0. */
INLINE vector load_stored_part(const stored *from, int64_t n) {
#if defined(STORED_IS_REAL)
    return load_part(from, n, 0);
#else
    stored lanes[LANES] = {0};
    memcpy(lanes, from, (size_t)n * sizeof(stored));
    return load_stored(lanes);
#endif
}

#if !defined(STORED_IS_READ_ONLY)
INLINE void store_stored_part(stored *to, vector x, int64_t n) {
    stored lanes[LANES];
    store_stored(lanes, x);
    memcpy(to, lanes, (size_t)n * sizeof(stored));
}
#endif

/* As TABLE_NAME, for a table that is another one for each storage type. */
#define STORED_TABLE_NAME(family) EXPANDED_TABLE_NAME(family, ATTNI_ISA, STORED_NAME)

#endif
