/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rms_norm_case.h: attn_rms_norm calls as cases of factors.
 */
#ifndef ATTENTION_TESTS_RMS_NORM_CASE_H
#define ATTENTION_TESTS_RMS_NORM_CASE_H

#include <attention/rms_norm.h>

#include "call_factors.h"
#include "call_run.h"
#include "support/random_tensor.h"

enum rms_norm_factor {
    NORM_OPTIONS = NUM_RUN_FACTORS,
    NORM_RANK,
    NORM_WIDTH,
    NORM_LEAD,
    NORM_EPSILON,
    NORM_WEIGHT,
    NORM_WEIGHT_DTYPE,
    NORM_WEIGHT_LAYOUT,
    NORM_OFFSET,
    NORM_INPUT_LAYOUT,
    NORM_OUTPUT_LAYOUT, /* the last level: output is input */
    NORM_RESULT,
    NORM_VALUES,
    NORM_SPECIAL,
    NUM_NORM_FACTORS
};

factor_set rms_norm_factor_set(void);

/* A call; its tensors are the pool's. */
typedef struct rms_norm_call {
    tensor_pool pool;
    const attn_tensor *input, *output;
    attn_rms_norm_params params;
    const attn_rms_norm_params *given_params; /* &params, or NULL */
} rms_norm_call;

/* `call` must stay where it is. */
void rms_norm_case_build(const factor_case *chosen, uint64_t seed, int free_lengths,
                         rms_norm_call *call);
void rms_norm_call_destroy(rms_norm_call *call);

/* Calls the library and compares; returns 0, or 1 with outcome->message. */
int rms_norm_call_run(const factor_set *set, const factor_case *chosen, rms_norm_call *call,
                      call_outcome *outcome);

/* A case_runner. */
int rms_norm_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                      int free_lengths, call_outcome *outcome);

#endif
