/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_case.h: attn_sdpa_merge calls as cases of factors.
 */
#ifndef ATTENTION_TESTS_MERGE_CASE_H
#define ATTENTION_TESTS_MERGE_CASE_H

#include <attention/merge.h>

#include "call_factors.h"
#include "call_run.h"
#include "support/random_tensor.h"

enum merge_factor {
    MERGE_OPTIONS = NUM_RUN_FACTORS,
    MERGE_COUNT,
    MERGE_RANK,
    MERGE_ROWS, /* L */
    MERGE_COLS, /* Ev */
    MERGE_LEAD,
    MERGE_PART_DTYPES,
    MERGE_OUTPUT_LAYOUT,
    MERGE_PARTS_LAYOUT,
    MERGE_LSES, /* the layout of lses, or none */
    MERGE_LSE,
    MERGE_IN_PLACE,
    MERGE_SINKS,
    MERGE_VALUES,
    MERGE_SPECIAL,
    NUM_MERGE_FACTORS
};

factor_set merge_factor_set(void);

enum { MERGE_MOST_PARTS = 15 };

typedef struct merge_call {
    tensor_pool pool;
    int64_t count;
    int64_t shape[ATTN_MAX_RANK];
    int32_t rank, dtype;
    attn_tensor outputs[MERGE_MOST_PARTS], lses[MERGE_MOST_PARTS];
    const attn_tensor *given_lses; /* lses or NULL */
    attn_merge_params params;
    const attn_merge_params *given_params; /* params, a longer struct or NULL */
    const attn_tensor *output, *lse;       /* in place: one of outputs, of lses; lse may be NULL */
} merge_call;

/* The call of a case; free_lengths is one of enum free_lengths. `call` must stay where it is. */
void merge_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, merge_call *call);

/* Calls the library and compares everything. Returns 0, or 1 with outcome->message. */
int merge_call_run(const factor_set *set, const factor_case *chosen, merge_call *call,
                   call_outcome *outcome);
void merge_call_destroy(merge_call *call);

/* A case_runner. */
int merge_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                   int free_lengths, call_outcome *outcome);

#endif
