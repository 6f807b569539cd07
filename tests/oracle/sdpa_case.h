/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_case.h: attn_sdpa calls as cases of factors: the shared ones and those of ranks,
 * broadcasting, heads and mask shapes.
 */
#ifndef ATTENTION_TESTS_SDPA_CASE_H
#define ATTENTION_TESTS_SDPA_CASE_H

#include <attention/sdpa.h>

#include "call_factors.h"
#include "call_run.h"
#include "support/random_tensor.h"

enum sdpa_factor {
    SDPA_RANKS = NUM_SHARED_FACTORS,
    SDPA_BATCH,
    SDPA_BROADCAST,
    SDPA_HEADS,
    SDPA_FEATURES,       /* E */
    SDPA_VALUE_FEATURES, /* Ev */
    SDPA_MASK_SHAPE,     /* enum scores_shape */
    SDPA_HIDDEN,
    SDPA_KEY_TYPE, /* enum stored_level */
    SDPA_VALUE_TYPE,
    SDPA_OUTPUT_TYPE, /* enum result_level */
    SDPA_WEIGHTS_TYPE,
    SDPA_KEYS_IN, /* enum keys_level */
    SDPA_QUERIES, /* enum queries_level */
    NUM_SDPA_FACTORS
};

/* What the oracle gets: a matrix for each batch and head, and as many columns as there are keys. */
typedef struct seen_call {
    attn_tensor query, output, lse, weights, mask, bias; /* views of the call's own */
    attn_tensor key, value; /* copies, with zeros in rows that no query sees */
    attn_sdpa_params params;
    const attn_sdpa_params *given_params; /* &params or NULL */
} seen_call;

/* One call with its tensors; sdpa_case_build makes it, sdpa_call_destroy frees it. */
typedef struct sdpa_call {
    tensor_pool pool;
    const attn_tensor *query, *key, *value, *output; /* key and value NULL: in kv */
    attn_kv kv;
    attn_sdpa_params params;
    attn_sdpa_report report;
    const attn_sdpa_params *given_params; /* &params or NULL */
    seen_call seen;
} sdpa_call;

factor_set sdpa_factor_set(void);

/* Columns of masks and weights in a case of so many keys. */
int64_t sdpa_case_columns(const factor_case *chosen, int64_t keys);

/* `all` with its axis of rows, `from_end` axes before the end, as that of equally long sequences:
 * (sequences, ..., rows, ...). */
attn_tensor split_rows(const attn_tensor *all, int32_t from_end, int64_t sequences, int64_t rows);

/* Fills call->seen but for key and value. `keys` are a sequence's own, `sequences` and `rows` those
 * of ragged queries. */
void sdpa_case_set_seen(const factor_case *chosen, int64_t keys, int64_t sequences, int64_t rows,
                        sdpa_call *call);

/* A key or value over all batch axes of the output, with its own heads: where it is broadcast, a
 * row in memory is several rows here. */
attn_tensor broadcast_keys(const attn_tensor *given, const sdpa_call *call);

/* Moves key and value to where the case wants them. What nobody needs is NaN, or no page. */
void sdpa_case_place_keys(const factor_case *chosen, uint64_t seed, sdpa_call *call);

/* `call` must stay where it is: it holds pointers into itself. */
void sdpa_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, sdpa_call *call);
void sdpa_call_destroy(sdpa_call *call);

/* Puts NaN and infinity where the case wants them, and makes the tensors for the oracle. */
void sdpa_case_poison(const factor_case *chosen, random_state *random, sdpa_call *call);

/* Calls the library and compares everything it gives: sdpa_case_run of a call that is built. */
int sdpa_call_run(const factor_set *set, const factor_case *chosen, sdpa_call *call,
                  call_outcome *outcome);

/* How far the case's kernels may round weights. */
double sdpa_case_weight_unit(const factor_set *set, const factor_case *chosen,
                             const sdpa_call *call);

/* A case_runner. */
int sdpa_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                  call_outcome *outcome);

#endif
