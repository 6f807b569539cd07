/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradient_kernels.h: what the backward pass does to rows of scores. As in row_kernels.h a row is n
 * >= 0 consecutive elements, float32 or float64, and kernels cannot fail.
 *
 * Each of the first three takes two rows: `scores`, where -inf says that a key is hidden, become the
 * weights, and `gradient`, that of the weights, becomes factor times that of the scores. Both are
 * exactly 0 where a key is hidden, whatever the gradient was.
 */
#ifndef ATTNI_KERNELS_GRADIENT_KERNELS_H
#define ATTNI_KERNELS_GRADIENT_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct attni_gradient_kernels {
    /* weight = exp(score - lse), errors as exp_sum's of row_kernels.h for scores <= lse, though
     * weights below the smallest normal number may become 0 or not;
     * gradient = factor * weight * (gradient - mean) */
    void (*softmax)(void *scores, void *gradient, int64_t n, double lse, double mean,
                    double factor);

    /* weight = 1 / (1 + exp(-score)); gradient = factor * weight * (1 - weight) * gradient */
    void (*sigmoid)(void *scores, void *gradient, int64_t n, double factor);

    /* weight = score; gradient = factor * gradient */
    void (*linear)(void *scores, void *gradient, int64_t n, double factor);

    /* gradient *= 1 - (capped / cap)^2, the derivative of softcap by what it made of a score; 0
     * stays 0. */
    void (*softcap)(void *gradient, const void *capped, int64_t n, double cap);

    /* to += from */
    void (*add)(void *to, const void *from, int64_t n);

    /* sum of a[j] * b[j]; its terms are rounded to the row's type, its error does not grow with n
     * beyond a few thousand. */
    double (*dot)(const void *a, const void *b, int64_t n);

    double (*sum)(const void *row, int64_t n);

    bool (*is_finite)(const void *row, int64_t n);
} attni_gradient_kernels;

#endif
