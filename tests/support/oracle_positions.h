/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_positions.h: what a layer does to projected queries or keys before they meet, their errors
 * included: norm, then rotation.
 */
#ifndef ATTENTION_TESTS_ORACLE_POSITIONS_H
#define ATTENTION_TESTS_ORACLE_POSITIONS_H

#include <attention/multihead.h>

#include "support/compare.h"
#include "support/oracle_tensor.h"

/* Projected rows (N, length, heads * features). */
typedef struct oracle_rows {
    oracle_array *numbers;
    int64_t batches, length, heads, features;
    bound_rounding rounding;
} oracle_rows;

/*
 * By config's norm; weight has a number for each feature that is normalised together. With errors e
 * of x the mean of squares is off by mean (2 |x| e + e^2), and the root's inverse by no more than
 * where it grows; two roundings more than attn_rms_norm's, for the score type and the oracle.
 */
void oracle_normalize_rows(const attn_mha_config *config, const double *weight,
                           const oracle_rows *rows);

/* By rope; the call has a batch axis or not. An error of x or y becomes one of at most both. Nothing
 * is infinite. */
void oracle_rotate_rows(const attn_rope_params *rope, int is_batched, const oracle_rows *rows);

#endif
