/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_fixture.h: a valid call of attn_sdpa_merge, of two parts, for suites that spoil one thing
 * of it.
 */
#ifndef TESTS_ERRORS_MERGE_FIXTURE_H
#define TESTS_ERRORS_MERGE_FIXTURE_H

#include "refusal.h"

enum { MERGE_H = 2, MERGE_L = 3, MERGE_EV = 4, MERGE_PARTS = 2 };

/* The views by number. */
enum merge_tensor {
    MERGE_FIRST, /* (H, L, Ev): outputs[0] */
    MERGE_SECOND,
    MERGE_OUTPUT,
    MERGE_FIRST_LSE, /* (H, L): lses[0] */
    MERGE_SECOND_LSE,
    MERGE_LSE,
    MERGE_SINKS, /* (H), an option */
    MERGE_TENSORS
};

/* All memory of the call in one block, so that two of them can be compared. */
typedef struct merge_memory {
    float outputs[MERGE_PARTS][MERGE_H * MERGE_L * MERGE_EV];
    float output[MERGE_H * MERGE_L * MERGE_EV];
    float lses[MERGE_PARTS][MERGE_H * MERGE_L];
    float lse[MERGE_H * MERGE_L];
    float sinks[MERGE_H];
} merge_memory;

typedef struct merge_fixture {
    merge_memory memory;
    attn_context *context;
    attn_tensor views[MERGE_TENSORS];
    int64_t count;
    bool has_outputs, has_lses, has_output, has_lse; /* else the argument is NULL */
    attn_merge_params options;
    const attn_merge_params *params; /* &options; a test may point it elsewhere */
} merge_fixture;

/* Makes the valid call, with lses and lse, without sinks. Outputs hold the canary. */
void merge_fixture_prepare(merge_fixture *fixture, attn_context *context);

attn_status merge_fixture_run(merge_fixture *fixture);

/* Fails the test unless output and lse are those of the prepared parts without sinks. */
void merge_fixture_assert_values(const merge_fixture *fixture);

#endif
