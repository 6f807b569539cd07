/* SPDX-License-Identifier: BSD-3-Clause
 *
 * half_numbers.c: 16-bit floating point from its definition.
 */
#include "support/half_numbers.h"

#include <float.h>
#include <math.h>

typedef struct half_format {
    int exponent_bits, mantissa_bits;
} half_format;

static half_format format_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_BFLOAT16 ? (half_format){8, 7} : (half_format){5, 10};
}

int half_is(int32_t dtype) {
    return dtype == ATTN_DTYPE_BFLOAT16 || dtype == ATTN_DTYPE_FLOAT16;
}

/* Infinity counts as the number that would follow the largest one. */
static double size_of(half_format format, int bits) {
    const int bias = (1 << (format.exponent_bits - 1)) - 1;
    const int exponent = bits >> format.mantissa_bits;
    const int mantissa = bits & ((1 << format.mantissa_bits) - 1);
    if (exponent == 0) {
        return ldexp(mantissa, 1 - bias - format.mantissa_bits);
    }
    return ldexp(mantissa + (1 << format.mantissa_bits), exponent - bias - format.mantissa_bits);
}

static int bits_of_infinity(half_format format) {
    return ((1 << format.exponent_bits) - 1) << format.mantissa_bits;
}

double half_number(int32_t dtype, uint16_t bits) {
    const half_format format = format_of(dtype);
    const int size_bits = bits & 0x7fff;
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    if (size_bits > bits_of_infinity(format)) {
        return NAN;
    }
    return sign * (size_bits == bits_of_infinity(format) ? INFINITY : size_of(format, size_bits));
}

/* The exponent of the numbers around `number`; below it numbers are as far apart. */
static int exponent_at(half_format format, double number) {
    const int lowest = 2 - (1 << (format.exponent_bits - 1));
    int exponent = 0;
    frexp(number, &exponent); /* number < 2^exponent */
    return number != 0 && exponent - 1 > lowest ? exponent - 1 : lowest;
}

uint16_t half_nearest(int32_t dtype, double number) {
    const half_format format = format_of(dtype);
    const uint16_t sign = signbit(number) ? 0x8000 : 0;
    const int infinity = bits_of_infinity(format);
    if (isnan(number)) {
        return (uint16_t)(sign | (infinity + 1));
    }
    if (fabs(number) >= size_of(format, infinity)) {
        return (uint16_t)(sign | infinity);
    }
    /* Steps from 0, of the size they have here; each binade before has half as many. */
    const int exponent = exponent_at(format, number);
    const int steps = (int)nearbyint(ldexp(fabs(number), format.mantissa_bits - exponent));
    const int binades = exponent - exponent_at(format, 0);
    return (uint16_t)(sign | (steps + (binades << format.mantissa_bits)));
}

double largest_of_dtype(int32_t dtype) {
    if (half_is(dtype)) {
        return half_number(dtype, (uint16_t)(bits_of_infinity(format_of(dtype)) - 1));
    }
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MAX : DBL_MAX;
}

double half_step(int32_t dtype, double number) {
    const half_format format = format_of(dtype);
    return ldexp(0.5, exponent_at(format, number) - format.mantissa_bits);
}
