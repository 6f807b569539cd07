/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_weights.h: turns the scores of one row into weights. Every engine that holds a whole row of
 * scores uses it.
 */
#ifndef ATTNI_SOFTMAX_ROW_WEIGHTS_H
#define ATTNI_SOFTMAX_ROW_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/row_kernels.h"
#include "softmax/mask.h"

/* A stretch of consecutive scores of a row, in the kernels' element type. */
typedef struct attni_stretch {
    void *scores;
    int64_t count;
} attni_stretch;

/* A row: the keys of its interval, and the extra columns behind all keys, which every row sees. */
typedef struct attni_row {
    attni_stretch keys;
    attni_stretch extra;
} attni_row;

typedef struct attni_row_result {
    bool is_empty; /* nothing is visible: all weights are 0, and so must the row's output be,
                      whatever the values hold */
    double lse;    /* softmax only */
} attni_row_result;

/* The value with which an excluded position enters the normaliser. */
double attni_excluded_score(int32_t normalizer);

/* Replaces the scores of a row by weights, enum attn_normalizer. `sink` is one more logit of
 * softmax's denominator, or NULL. */
attni_row_result attni_normalize_row(const attni_row_kernels *kernels, int32_t normalizer,
                                     const attni_row *row, const double *sink);

#endif
