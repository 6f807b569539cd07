/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exponential.h: exp of the fused engine's scores, float32, within 2 units in the last place. For
 * sources that the build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_EXPONENTIAL_H
#define ATTNI_KERNELS_EXPONENTIAL_H

#include <math.h>

#include "kernels/vectors.h"

/* exp(r) for |r| <= ln(2) / 2 by a polynomial with the relative error 3.2e-9. */
static const float exp_series[7] = {
    1.0F, 1.0F, 0x1.fffffcp-2F, 0x1.555492p-3F, 0x1.5558b2p-5F, 0x1.12399ep-7F, 0x1.6a4c3cp-10F,
};

enum { MOST_AT_ONCE = 4 };

/* x = exp(x) for `count` vectors of x <= 0 or NaN: 2^n exp(r), n the integer nearest x / ln 2 and r
 * = x - n ln 2. n ln 2 is taken off in two parts, of which the first is exact, so that it does not
 * matter whether the compiler fuses products and sums. n = -127 has exponent bits 0, so that the
 * power of 2 is 0, as is exp(-inf). x is bounded below where n is -127, or -128 where the host
 * rounds downward, which is bounded in turn; a little more, and upward n would be -126. The steps
 * go over all vectors at a time, since each waits for the one before. */
INLINE void exponentiate(vector *x, const int count) {
    vector shifted[MOST_AT_ONCE];
    vector series[MOST_AT_ONCE];
    UNROLL
    for (int v = 0; v < count; ++v) {
        x[v] = larger(broadcast(-0x1.602p6F), x[v]);
        shifted[v] = x[v] * 0x1.715476p0F + (ROUND_MAGIC + EXPONENT_BIAS);
        shifted[v] = larger(broadcast(ROUND_MAGIC), shifted[v]);
    }
    UNROLL
    for (int v = 0; v < count; ++v) {
        const vector n = shifted[v] - (ROUND_MAGIC + EXPONENT_BIAS);
        x[v] = (x[v] - n * LN2_HIGH) - n * LN2_LOW;
        series[v] = x[v] * exp_series[6] + exp_series[5];
    }
    UNROLL
    for (int k = 4; k >= 0; --k) {
        UNROLL
        for (int v = 0; v < count; ++v) {
            series[v] = series[v] * x[v] + exp_series[k];
        }
    }
    UNROLL
    for (int v = 0; v < count; ++v) {
        x[v] = series[v] * (vector)((vector_mask)shifted[v] << MANTISSA_BITS);
    }
}

/* A row that has seen nothing has the maximum -inf; any finite number in its place makes all its
 * weights 0. */
INLINE vector finite_max(vector max) {
    return choose(max == -(float)INFINITY, broadcast(0), max);
}

#endif
