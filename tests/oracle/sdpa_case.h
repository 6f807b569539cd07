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
    NUM_SDPA_FACTORS
};

/* One call with its tensors; sdpa_case_build makes it, sdpa_call_destroy frees it. */
typedef struct sdpa_call {
    tensor_pool pool;
    const attn_tensor *query, *key, *value, *output;
    attn_tensor seen_key, seen_value; /* what the oracle gets: zeros in rows that no query sees */
    attn_sdpa_params params;
    attn_sdpa_report report;
    const attn_sdpa_params *given_params; /* &params or NULL */
} sdpa_call;

factor_set sdpa_factor_set(void);

/* `call` must stay where it is: it holds pointers into itself. */
void sdpa_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, sdpa_call *call);
void sdpa_call_destroy(sdpa_call *call);

/* Puts NaN and infinity where the case wants them, and makes the tensors for the oracle. */
void sdpa_case_poison(const factor_case *chosen, random_state *random, sdpa_call *call);

/* Calls the library and compares everything it gives: sdpa_case_run of a call that is built. */
int sdpa_call_run(const factor_set *set, const factor_case *chosen, sdpa_call *call,
                  call_outcome *outcome);

/* A case_runner. */
int sdpa_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                  call_outcome *outcome);

#endif
