/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_kernels.h: what the row kernels promise.
 *
 * A kernel works on a row: n >= 0 consecutive elements (float32 or float64, at any alignment) that
 * it may change in place. Kernels get raw pointers and sizes that the caller has checked; they
 * cannot fail and do not allocate. Numbers travel as double and are rounded to the row's type. NaN
 * goes in and NaN comes out unless said otherwise. Within one row results do not depend on n's
 * remainder by the vector width: every element is computed the same way.
 */
#ifndef ATTNI_KERNELS_ROW_KERNELS_H
#define ATTNI_KERNELS_ROW_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/dropout_stream.h"

typedef struct attni_row_kernels {
    /* The largest element that is not NaN; -inf if there is none. */
    double (*max)(const void *row, int64_t n);

    bool (*has_nan)(const void *row, int64_t n);

    /* Whether every element is 0 of either sign. */
    bool (*is_zero)(const void *row, int64_t n);

    /* row = exp(row - max) for elements <= max; returns the sum. Relative error of each: below 2
     * units in the last place, beside the rounding of row - max; results below the smallest normal
     * number become 0, so exp(-inf) is exactly 0. The sum is added up in blocks, so that its error
     * does not grow with n. */
    double (*exp_sum)(void *row, int64_t n, double max);

    /* row = exp(row) for elements <= 0; errors as exp_sum's. */
    void (*exp)(void *row, int64_t n);

    /* row = factor * row */
    void (*scale)(void *row, int64_t n, double factor);

    /* row = cap * tanh(row / cap), cap > 0; within 6 units in the last place. */
    void (*softcap)(void *row, int64_t n, double cap);

    /* row[j] -= slope * |distance - j| */
    void (*alibi)(void *row, int64_t n, double slope, double distance);

    /* row = 1 / (1 + exp(-row)); within 4 units in the last place; 0 for -inf. */
    void (*sigmoid)(void *row, int64_t n);

    /* row[j] += bias[j * stride], sums of finite numbers staying finite; where the bias is -inf,
     * row[j] = excluded whatever it was. bias_dtype is any floating-point type. */
    void (*add_bias)(void *row, int64_t n, const void *bias, int64_t stride, int32_t bias_dtype,
                     double excluded);

    /* row[j] = excluded where the bias is -inf; nothing is added elsewhere. */
    void (*exclude)(void *row, int64_t n, const void *bias, int64_t stride, int32_t bias_dtype,
                    double excluded);

    /* row[j] = excluded where (flags[j * stride] != 0) == hidden_if. */
    void (*hide)(void *row, int64_t n, const unsigned char *flags, int64_t stride, bool hidden_if,
                 double excluded);

    /* row[j] *= scale where column + j of row `number` and the counter's word `head` is kept, else
     * 0, which leaves a NaN. */
    void (*drop)(void *row, int64_t n, int64_t column, uint32_t number, uint32_t head,
                 const attni_dropout_stream *stream);

    /* row[j] = what drop multiplies it with. */
    void (*keep)(void *row, int64_t n, int64_t column, uint32_t number, uint32_t head,
                 const attni_dropout_stream *stream);

    /* row[j] *= factors[j] */
    void (*multiply)(void *row, const void *factors, int64_t n);

    /* to[c] += factor * from[c * stride] */
    void (*accumulate)(void *to, const void *from, int64_t stride, int64_t n, double factor);
} attni_row_kernels;

#endif
