/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_attention.h: the attention of one head at a time, in float64, on plain arrays: the part
 * attn_sdpa and attn_mha_forward have in common. Everything is already broadcast: B batches, H
 * heads, L query rows, S keys that masks know and `extra_keys` more after them that every row sees,
 * T in all; E features of query and key, Ev of value.
 */
#ifndef ATTENTION_TESTS_ORACLE_ATTENTION_H
#define ATTENTION_TESTS_ORACLE_ATTENTION_H

#include <stdint.h>

#include <attention/sdpa.h>

#include "support/compare.h"
#include "support/oracle_softmax.h"

typedef struct oracle_problem {
    int64_t batches, heads, rows, keys, extra_keys, features, value_features;
    bound_rounding rounding;
    double weight_unit;        /* how far weights may be rounded before they weigh values */
    oracle_array query;        /* (B, H, L, E) */
    oracle_array key;          /* (B, H, T, E) */
    oracle_array value;        /* (B, H, T, Ev) */
    oracle_mask mask;          /* (B, H, L, S): masks and biases */
    unsigned char *is_padding; /* (B, S): hidden from every row whatever the key holds */
    double scale, softcap;
    double *alibi_slopes;              /* (H) or NULL */
    double *sinks;                     /* (H) or NULL */
    int64_t *query_offset;             /* (B) */
    int64_t *key_lengths;              /* (B) */
    int64_t *mask_start;               /* (B), or NULL: the mask has a column for each key */
    int64_t mask_columns;              /* with mask_start */
    unsigned char *blocks;             /* (B, H, L, S) of enum attn_block, or NULL */
    int64_t window_left, window_right; /* -1: unlimited */
    int is_causal, num_biases;
    int32_t normalizer;
    const attn_dropout *dropout; /* or NULL */
    int32_t scores_stage;
    int has_scores; /* else none are wanted */
} oracle_problem;

typedef struct oracle_result {
    oracle_array output;          /* (B, H, L, Ev) */
    oracle_array lse;             /* (B, H, L); softmax only */
    oracle_array weights;         /* (B, H, L, T) */
    oracle_array average_weights; /* (B, L, T) */
    oracle_array scores;          /* (B, H, L, T), or empty */
    int64_t num_visible;          /* pairs of a row and one of the S keys it sees */
} oracle_result;

/* Allocates the arrays whose sizes the fields before `rounding` give, all zero, no window, every
 * key there. */
void oracle_problem_allocate(oracle_problem *problem);

/*
 * Takes over the options that need no broadcasting (scale, softcap, window, normalizer, causality,
 * slopes and sinks per head) from params, which may be NULL; E is features.
 */
void oracle_problem_set_options(oracle_problem *problem, const attn_sdpa_params *params);

/* Places the last row at the last key: query_offset becomes key_lengths - L. */
void oracle_problem_align_end(oracle_problem *problem);

/* Takes over params.block_mask, if there is one, before masks are added. Its axes before the blocks
 * broadcast to lead[0..lead_rank), of which `problem` has (B, H). */
void oracle_problem_set_blocks(oracle_problem *problem, const attn_sdpa_params *params,
                               int32_t lead_rank, const int64_t *lead);

/* Adds a mask of scores of this shape, of which `problem` has (B, H, L, S), by its mask_start. */
void oracle_problem_add_mask(oracle_problem *problem, int32_t kind, const attn_tensor *mask,
                             int32_t rank, const int64_t *shape);

/* Adds params.position_bias, if there is one, once positions are known. */
void oracle_problem_add_position_bias(oracle_problem *problem, const attn_sdpa_params *params);
void oracle_problem_destroy(oracle_problem *problem);

/* (B, S), freed by the caller: 1 where padding, lengths, causality, window and blocks leave no row
 * that sees the key, so that it may hold anything. What the dense mask alone hides does not count. */
unsigned char *oracle_hidden_keys(const oracle_problem *problem);

oracle_result oracle_attention(const oracle_problem *problem);
void oracle_result_destroy(oracle_result *result);

#endif
