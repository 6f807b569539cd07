/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exact_exponential.h: exp within 2 units in the last place, for rows of float32 and float64. For
 * sources that the build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_EXACT_EXPONENTIAL_H
#define ATTNI_KERNELS_EXACT_EXPONENTIAL_H

#include "kernels/vectors.h"

/* 1/k!, the Taylor coefficients of exp. */
static const real inverse_factorial[15] = {
    (real)1.0,
    (real)1.0,
    (real)(1.0 / 2),
    (real)(1.0 / 6),
    (real)(1.0 / 24),
    (real)(1.0 / 120),
    (real)(1.0 / 720),
    (real)(1.0 / 5040),
    (real)(1.0 / 40320),
    (real)(1.0 / 362880),
    (real)(1.0 / 3628800),
    (real)(1.0 / 39916800),
    (real)(1.0 / 479001600),
    (real)(1.0 / 6227020800),
    (real)(1.0 / 87178291200),
};

/* exp(x) = power + power * tail for LOWEST_ARGUMENT <= x <= 0, with power = 2^n, n the integer
 * nearest x / ln 2, and tail = exp(r) - 1, r = x - n ln 2 in [-ln(2)/2, ln(2)/2], by its Taylor
 * series. Kept apart so that exp(x) - 1 is exact too. */
typedef struct exp_parts {
    vector power;
    vector tail;
} exp_parts;

INLINE exp_parts split_exp(vector x) {
    const vector shifted = x * LOG2_E + ROUND_MAGIC;
    const vector n = shifted - ROUND_MAGIC;
    const vector r = (x - n * LN2_HIGH) - n * LN2_LOW;
    vector series = broadcast(inverse_factorial[TAYLOR_TERMS]);
    for (int k = TAYLOR_TERMS - 1; k >= 2; --k) {
        series = series * r + inverse_factorial[k];
    }
    exp_parts parts;
    parts.tail = r * r * series + r;
    /* Unsigned, since the bits of a NaN may wrap around. */
    parts.power = (vector)(((vector_number)shifted + EXPONENT_BIAS) << MANTISSA_BITS);
    return parts;
}

/* exp(x) for x <= 0 or NaN. */
INLINE vector exp_nonpositive(vector x) {
    const vector_mask vanishes = x < LOWEST_ARGUMENT;
    const exp_parts parts = split_exp(choose(vanishes, broadcast(LOWEST_ARGUMENT), x));
    return choose(vanishes, broadcast(0), parts.power * parts.tail + parts.power);
}

/* 1 / (1 + exp(-x)), with e = exp(-|x|): 1 / (1 + e) for x >= 0, e / (1 + e) below. */
INLINE vector logistic(vector x) {
    const vector e = exp_nonpositive(-absolute(x));
    return choose(x < 0, e, broadcast(1)) / (1 + e);
}

#endif
