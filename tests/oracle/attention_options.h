/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention_options.h: turns the levels of the shared factors into an attn_sdpa_params and its
 * tensors.
 */
#ifndef ATTENTION_TESTS_ATTENTION_OPTIONS_H
#define ATTENTION_TESTS_ATTENTION_OPTIONS_H

#include <attention/sdpa.h>

#include "call_factors.h"
#include "support/random_tensor.h"

/* The sizes of the attention the options belong to. */
typedef struct option_shape {
    int32_t dtype;
    int32_t index_dtype; /* of query_offset, key_lengths and mask_start */
    int32_t lead_rank;   /* axes before the rows: batch axes and, last, the heads */
    int64_t lead[ATTN_MAX_RANK];
    int64_t heads, rows, keys;
    int64_t columns; /* of masks and weights; keys, or more that nobody has */
    int is_ragged;   /* rows of all sequences stand one behind the other: lead is the heads, rows */
    int64_t sequences; /* are all, and these have offsets and lengths */
} option_shape;

/* Everything but mask, is_causal and weights: scale, positions, lengths, window, softcap, the start
 * of a mask, biases, blocks, ALiBi, sinks, normalizer, lse. */
void build_attention_options(const factor_case *chosen, const option_shape *shape,
                             tensor_pool *pool, random_state *random, attn_sdpa_params *params);

/* A mask of a level of enum mask_level and its kind (enum attn_mask_kind); `layout` counts from 1,
 * as in optional_layout_names. */
attn_tensor *build_mask(int level, int32_t dtype, int32_t rank, const int64_t *shape, int layout,
                        tensor_pool *pool, random_state *random, int32_t *kind);

/* Columns of a mask of `columns` keys, or any number where it is placed by mask_start. */
int64_t mask_columns(const factor_case *chosen, int64_t columns, random_state *random);

/* The axes of a mask or bias of a level of enum scores_shape; returns their number. */
int32_t scores_axes(int level, const option_shape *shape, int64_t *axes);

/* Of a level of index_dtype_names. */
int32_t index_dtype_of_level(int level);

/* The logarithms of the row sums, (lead..., rows), for a level of enum lse_level; NULL for none. */
attn_tensor *build_lse(int level, int32_t dtype, int32_t lead_rank, const int64_t *lead,
                       int64_t rows, tensor_pool *pool);

/* Replaces elements by `number`, each with the probability given. */
void sprinkle(const attn_tensor *tensor, random_state *random, double probability, double number);

/* (lead..., rows, keys) or, averaged, without the heads. */
attn_tensor *build_weights(const option_shape *shape, int32_t dtype, int is_averaged,
                           int64_t num_keys, int layout, tensor_pool *pool);

/* params.scores, (lead..., rows, num_keys), and its stage, as the case says. */
void build_scores(const factor_case *chosen, const option_shape *shape, int64_t num_keys,
                  tensor_pool *pool, attn_sdpa_params *params);

/* Query and key (is_value 0) or value elements as FACTOR_VALUES says. */
void fill_operand(const factor_case *chosen, const attn_tensor *tensor, int is_value,
                  random_state *random);

int32_t dtype_of_case(const factor_case *chosen);

/* The type of the scores of a query of `dtype`. */
int32_t score_dtype(int32_t dtype);

/* Of a level of enum stored_level; `own` is query's. */
int32_t stored_dtype(int level, int32_t own);

/* Of a result whose factor has levels of enum result_level. */
int32_t result_dtype(const factor_case *chosen, int number);

#endif
