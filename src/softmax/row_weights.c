/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_weights.c: the normalisers, applied to one row.
 */
#include "softmax/row_weights.h"

#include <math.h>

#include <attention/sdpa.h>

double attni_excluded_score(int32_t normalizer) {
    return normalizer == ATTN_NORMALIZER_LINEAR ? 0.0 : -(double)INFINITY;
}

static double row_max(const attni_row_kernels *kernels, const attni_row *row) {
    return fmax(kernels->max(row->keys.scores, row->keys.count),
                kernels->max(row->extra.scores, row->extra.count));
}

static bool row_has_nan(const attni_row_kernels *kernels, const attni_row *row) {
    return kernels->has_nan(row->keys.scores, row->keys.count) ||
           kernels->has_nan(row->extra.scores, row->extra.count);
}

static void scale_row(const attni_row_kernels *kernels, const attni_row *row, double factor) {
    kernels->scale(row->keys.scores, row->keys.count, factor);
    kernels->scale(row->extra.scores, row->extra.count, factor);
}

/* weight = exp(score - m) / l,  l = sum of exp(score - m) + exp(sink - m),  lse = m + log(l). */
static attni_row_result softmax_row(const attni_row_kernels *kernels, const attni_row *row,
                                    const double *sink) {
    const double largest = row_max(kernels, row);
    const bool is_empty = largest == -(double)INFINITY && !row_has_nan(kernels, row);
    double top = largest;
    if (sink != NULL && !(*sink <= top)) {
        top = *sink;
    }
    if (top == -(double)INFINITY) {
        /* All is -inf or NaN: any finite maximum makes the one 0 and keeps the other. */
        top = 0;
    }
    double sum = kernels->exp_sum(row->keys.scores, row->keys.count, top) +
                 kernels->exp_sum(row->extra.scores, row->extra.count, top);
    if (sink != NULL) {
        sum += exp(*sink - top);
    }
    if (sum != 0) {
        scale_row(kernels, row, 1 / sum);
    }
    return (attni_row_result){.is_empty = is_empty, .lse = top + log(sum)};
}

/* A row of excluded positions has no score above -inf. */
static attni_row_result sigmoid_row(const attni_row_kernels *kernels, const attni_row *row) {
    const bool is_empty = row_max(kernels, row) == -(double)INFINITY && !row_has_nan(kernels, row);
    kernels->sigmoid(row->keys.scores, row->keys.count);
    kernels->sigmoid(row->extra.scores, row->extra.count);
    return (attni_row_result){.is_empty = is_empty};
}

/* Excluded positions are 0 already, and a row of zeroes has output 0 just as an empty one. */
static attni_row_result plain_row(const attni_row_kernels *kernels, const attni_row *row) {
    const bool is_zero = kernels->is_zero(row->keys.scores, row->keys.count) &&
                         kernels->is_zero(row->extra.scores, row->extra.count);
    return (attni_row_result){.is_empty = is_zero};
}

attni_row_result attni_normalize_row(const attni_row_kernels *kernels, int32_t normalizer,
                                     const attni_row *row, const double *sink) {
    switch (normalizer) {
    case ATTN_NORMALIZER_SIGMOID:
        return sigmoid_row(kernels, row);
    case ATTN_NORMALIZER_LINEAR:
        return plain_row(kernels, row);
    default:
        return softmax_row(kernels, row, sink);
    }
}
