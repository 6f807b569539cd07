/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_softmax.h: the text of attention/softmax.h in float64: masks, one row's softmax, and
 * attn_softmax.
 */
#ifndef ATTENTION_TESTS_ORACLE_SOFTMAX_H
#define ATTENTION_TESTS_ORACLE_SOFTMAX_H

#include <stdint.h>

#include <attention/softmax.h>

#include "support/compare.h"
#include "support/oracle_tensor.h"

/* All masks of a call added up, over a full array of positions. */
typedef struct oracle_mask {
    double *bias; /* what is added to the score; -inf where any mask hides the position, 0 where
                     none says anything */
    double *magnitude; /* sum of the absolute finite values added */
} oracle_mask;

/* A mask that hides nothing and adds nothing. */
oracle_mask oracle_mask_create(int64_t count);
void oracle_mask_destroy(oracle_mask *mask);

/* Adds a mask tensor of one of enum attn_mask_kind, broadcast to `shape`. */
void oracle_mask_add(oracle_mask *mask, int32_t kind, const attn_tensor *tensor, int32_t rank,
                     const int64_t *shape);

/* The same of a mask whose first column is key starts[row / rows_of_start] of a row: keys before it
 * stay as they are, those behind its last column are hidden. */
void oracle_mask_add_placed(oracle_mask *mask, int32_t kind, const attn_tensor *tensor,
                            int32_t rank, const int64_t *shape, const int64_t *starts,
                            int64_t rows_of_start);

/* Adds a number to one score; -inf hides it. */
void oracle_mask_add_bias(oracle_mask *mask, int64_t at, double bias);

/* One row: which positions are visible and their scores with errors go in, weights with errors and
 * the lse come out. */
typedef struct oracle_row {
    int64_t count;
    unsigned char *visible;
    double *score, *score_error;
    double *weight, *weight_error; /* exactly 0 at hidden positions */
    double lse, lse_error;
} oracle_row;

oracle_row oracle_row_create(int64_t count);
void oracle_row_destroy(oracle_row *row);

/* A visible NaN or +inf makes the weights of all visible positions and the lse NaN; no visible
 * position: weights 0, lse -inf. */
void oracle_row_softmax(oracle_row *row, bound_rounding rounding);

typedef struct oracle_softmax_result {
    oracle_array output; /* input's shape */
    oracle_array lse;    /* without the last axis */
    int64_t num_visible;
} oracle_softmax_result;

/* attn_softmax(input, params); params may be NULL. */
oracle_softmax_result oracle_softmax(const attn_tensor *input, const attn_softmax_params *params);
void oracle_softmax_result_destroy(oracle_softmax_result *result);

#endif
