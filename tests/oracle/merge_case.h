/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_case.h: attn_sdpa_merge calls as cases of factors.
 */
#ifndef ATTENTION_TESTS_MERGE_CASE_H
#define ATTENTION_TESTS_MERGE_CASE_H

#include "call_factors.h"
#include "call_run.h"

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

/* A case_runner. */
int merge_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                   int free_lengths, call_outcome *outcome);

#endif
