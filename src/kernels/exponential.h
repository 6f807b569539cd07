/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exponential.h: exp of the fused engine's scores, float32, within 2 units in the last place. For
 * sources that the build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_EXPONENTIAL_H
#define ATTNI_KERNELS_EXPONENTIAL_H

#include <math.h>

#include "kernels/vectors.h"

/* 2^f for |f| <= 1/2 by a polynomial with the least relative error, 2.6e-9. */
static const float power_of_2[7] = {
    1.0F,           0x1.62e432p-1F,  0x1.ebfbe2p-3F,  0x1.c6ae72p-5F,
    0x1.3b270ep-7F, 0x1.5f7276p-10F, 0x1.470b4ap-13F,
};

enum { MOST_AT_ONCE = 4 };

/* x = exp(x) for `count` vectors of x <= 0 or NaN: 2^n 2^f, n the integer nearest x / ln 2 and f
 * the rest. x is bounded below where n becomes -127, whose power of 2 has exponent bits 0: it is 0,
 * as is exp(-inf). The steps go over all vectors at a time, since each waits for the one before. */
INLINE void exponentiate(vector *x, const int count) {
    vector shifted[MOST_AT_ONCE];
    vector series[MOST_AT_ONCE];
    UNROLL
    for (int v = 0; v < count; ++v) {
        x[v] = larger(broadcast(-0x1.601ap6F), x[v]);
        shifted[v] = x[v] * 0x1.715476p0F + (ROUND_MAGIC + EXPONENT_BIAS);
    }
    UNROLL
    for (int v = 0; v < count; ++v) {
        series[v] = x[v] * 0x1.715476p0F - (shifted[v] - (ROUND_MAGIC + EXPONENT_BIAS));
    }
    UNROLL
    for (int v = 0; v < count; ++v) {
        x[v] = x[v] * 0x1.4ae0cp-26F + series[v];
        series[v] = x[v] * power_of_2[6] + power_of_2[5];
    }
    UNROLL
    for (int k = 4; k >= 0; --k) {
        UNROLL
        for (int v = 0; v < count; ++v) {
            series[v] = series[v] * x[v] + power_of_2[k];
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
