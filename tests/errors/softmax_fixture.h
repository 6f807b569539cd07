/* SPDX-License-Identifier: BSD-3-Clause
 *
 * softmax_fixture.h: a valid call of attn_softmax with a view of every optional tensor at hand, for
 * suites that spoil one thing of it.
 */
#ifndef TESTS_ERRORS_SOFTMAX_FIXTURE_H
#define TESTS_ERRORS_SOFTMAX_FIXTURE_H

#include "refusal.h"

enum { SOFTMAX_ROWS = 4, SOFTMAX_COLS = 6, SOFTMAX_STEP = 2 };

/* The views by number; the first two are the call's arguments, the others its options. */
enum softmax_tensor {
    SOFTMAX_INPUT,  /* (rows, cols) */
    SOFTMAX_OUTPUT, /* (rows, cols) */
    SOFTMAX_ARGUMENTS,
    SOFTMAX_MASK = SOFTMAX_ARGUMENTS, /* (cols), float32 */
    SOFTMAX_BOOL_MASK,                /* (rows, cols) */
    SOFTMAX_LENGTHS,                  /* (rows) */
    SOFTMAX_LSE,                      /* (rows) */
    SOFTMAX_TENSORS
};

/* All memory of the call in one block, so that two of them can be compared. */
typedef struct softmax_memory {
    float input[SOFTMAX_ROWS * SOFTMAX_COLS];
    float output[SOFTMAX_ROWS * SOFTMAX_COLS * SOFTMAX_STEP]; /* room for every second element */
    float mask[SOFTMAX_COLS];
    unsigned char bool_mask[SOFTMAX_ROWS * SOFTMAX_COLS];
    int64_t lengths[SOFTMAX_ROWS];
    float lse[SOFTMAX_ROWS];
} softmax_memory;

typedef struct softmax_fixture {
    softmax_memory memory;
    attn_context *context;
    attn_tensor views[SOFTMAX_TENSORS];
    const attn_tensor *arguments[SOFTMAX_ARGUMENTS];
    attn_softmax_params options;
    const attn_softmax_params *params; /* &options; a test may point it elsewhere */
    void *workspace;
    size_t workspace_bytes;
} softmax_fixture;

/* Makes the valid call, without options. Outputs hold the canary. */
void softmax_fixture_prepare(softmax_fixture *fixture, attn_context *context);

/* Makes the output take every second element, so that the call needs a workspace. */
void softmax_fixture_spread_output(softmax_fixture *fixture);

/* Puts an optional view into the options; a mask's kind is the caller's to set. */
void softmax_fixture_link(softmax_fixture *fixture, int tensor);

attn_status softmax_fixture_run(softmax_fixture *fixture);
attn_status softmax_fixture_workspace_bytes(softmax_fixture *fixture, size_t *bytes);

/* Fails the test unless output is the softmax of the prepared input without options. */
void softmax_fixture_assert_values(const softmax_fixture *fixture);

#endif
