/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_case.h: attn_rope calls as cases of factors.
 */
#ifndef ATTENTION_TESTS_ROPE_CASE_H
#define ATTENTION_TESTS_ROPE_CASE_H

#include <attention/rope.h>

#include "call_factors.h"
#include "call_run.h"
#include "support/random_tensor.h"

enum rope_factor {
    ROPE_OPTIONS = NUM_RUN_FACTORS,
    ROPE_RANK,
    ROPE_ROWS,
    ROPE_FEATURES,
    ROPE_ROTARY_DIM,
    ROPE_LEAD,
    ROPE_INTERLEAVED,
    ROPE_INVERSE,
    ROPE_MAGNITUDE,
    ROPE_SOURCE,
    ROPE_TABLE_DTYPE,
    ROPE_TABLE_LAYOUT,
    ROPE_PLACES,
    ROPE_INDEX_DTYPE,
    ROPE_INPUT_LAYOUT,
    ROPE_OUTPUT_LAYOUT, /* the last level: output is input */
    ROPE_RESULT,
    ROPE_SPECIAL,
    NUM_ROPE_FACTORS
};

factor_set rope_factor_set(void);

/* A call; its tensors are the pool's. */
typedef struct rope_call {
    tensor_pool pool;
    const attn_tensor *input, *output;
    attn_rope_params params;
    const attn_rope_params *given_params; /* &params, or NULL */
} rope_call;

/* `call` must stay where it is. */
void rope_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, rope_call *call);
void rope_call_destroy(rope_call *call);

/* Calls the library and compares; returns 0, or 1 with outcome->message. */
int rope_call_run(const factor_set *set, const factor_case *chosen, rope_call *call,
                  call_outcome *outcome);

/* A case_runner. */
int rope_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                  call_outcome *outcome);

#endif
