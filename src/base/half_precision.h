/* SPDX-License-Identifier: BSD-3-Clause
 *
 * half_precision.h: single numbers of 16 bits. Widening is exact; narrowing rounds once, to
 * nearest, ties to even, to infinity beyond the largest number. Rows of them are what
 * kernels/storage_kernels.h is for.
 */
#ifndef ATTNI_BASE_HALF_PRECISION_H
#define ATTNI_BASE_HALF_PRECISION_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t attni_bits_of_float(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static inline float attni_float_of_bits(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* A bfloat16 is the upper half of a float32. */
static inline float attni_widen_bfloat16(uint16_t half) {
    return attni_float_of_bits((uint32_t)half << 16);
}

/* The exponent's bias moves by 112, once more for infinity and NaN. A subnormal number, read as a
 * normal one, is by 2^-14 too large. */
static inline float attni_widen_float16(uint16_t half) {
    const uint32_t sign = (half & 0x8000U) << 16;
    const uint32_t moved = (half & 0x7fffU) << 13;
    const uint32_t exponent = moved & (0x7c00U << 13);
    if (exponent == 0) {
        const float size = attni_float_of_bits(moved + (113U << 23)) - 0x1p-14F;
        return attni_float_of_bits(attni_bits_of_float(size) | sign);
    }
    const bool is_special = exponent == 0x7c00U << 13;
    return attni_float_of_bits((moved + (is_special ? 224U << 23 : 112U << 23)) | sign);
}

/* The float32 that rounds to 16 bits as `number` does: where it is not exact its last bit is 1, so
 * that it is not taken for a tie. */
static inline uint32_t attni_round_to_odd(double number) {
    const float nearest = (float)number;
    uint32_t bits = attni_bits_of_float(nearest);
    if ((double)nearest == number || isnan(number)) {
        return bits;
    }
    const bool is_beyond = fabs((double)nearest) > fabs(number);
    return (bits - (is_beyond ? 1 : 0)) | 1;
}

static inline uint16_t attni_narrow_bfloat16(double number) {
    const uint32_t bits = attni_round_to_odd(number);
    if (isnan(number)) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Below 2^-14 a float16 is a multiple of 2^-24: adding 1/2 to a float32 rounds to one. */
static inline uint16_t attni_narrow_float16(double number) {
    const uint32_t bits = attni_round_to_odd(number);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t size = bits & 0x7fffffff;
    if (isnan(number)) {
        return sign | 0x7e00;
    }
    if (size >= 0x477ff000) { /* 65520, halfway past the largest number */
        return sign | 0x7c00;
    }
    if (size < 113U << 23) {
        const float sum = attni_float_of_bits(size) + 0.5F;
        return (uint16_t)(sign | (attni_bits_of_float(sum) - attni_bits_of_float(0.5F)));
    }
    const uint32_t moved = size - (112U << 23);
    return (uint16_t)(sign | (moved + 0xfff + (moved >> 13 & 1)) >> 13);
}

#endif
