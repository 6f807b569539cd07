/* SPDX-License-Identifier: BSD-3-Clause
 *
 * softmax_case.h: attn_softmax calls as cases of factors.
 */
#ifndef ATTENTION_TESTS_SOFTMAX_CASE_H
#define ATTENTION_TESTS_SOFTMAX_CASE_H

#include <attention/softmax.h>

#include "call_factors.h"
#include "call_run.h"
#include "support/random_tensor.h"

enum softmax_factor {
    SOFTMAX_OPTIONS = NUM_RUN_FACTORS,
    SOFTMAX_RANK,
    SOFTMAX_WIDTH,
    SOFTMAX_LEAD,
    SOFTMAX_INPUT_LAYOUT,
    SOFTMAX_OUTPUT_LAYOUT, /* the last level: output is input */
    SOFTMAX_MASK,
    SOFTMAX_MASK_SHAPE,
    SOFTMAX_MASK_LAYOUT,
    SOFTMAX_LENGTHS,
    SOFTMAX_INDEX_DTYPE,
    SOFTMAX_LSE,
    SOFTMAX_VALUES,
    SOFTMAX_SPECIAL,
    NUM_SOFTMAX_FACTORS
};

factor_set softmax_factor_set(void);

/* A case_runner. */
int softmax_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                     int free_lengths, call_outcome *outcome);

#endif
