/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_fixture.h: valid calls of attn_rope and attn_rms_norm with a view of every optional tensor
 * at hand, for suites that spoil one thing of them.
 */
#ifndef TESTS_ERRORS_ROPE_FIXTURE_H
#define TESTS_ERRORS_ROPE_FIXTURE_H

#include "refusal.h"

/* Input is (batches, heads, rows, features), of which R are rotated; tables have P rows. */
enum {
    ROPE_BATCHES = 2,
    ROPE_HEADS = 2,
    ROPE_ROWS = 3,
    ROPE_FEATURES = 6,
    ROPE_DIM = 4,
    ROPE_PLACES = 5,
    ROPE_ELEMENTS = ROPE_BATCHES * ROPE_HEADS * ROPE_ROWS * ROPE_FEATURES
};

/* The views by number; the first two are the calls' arguments, the others options. */
enum rope_tensor {
    ROPE_INPUT,
    ROPE_OUTPUT,
    ROPE_ARGUMENTS,
    ROPE_FREQUENCIES = ROPE_ARGUMENTS, /* (R/2) */
    ROPE_COS,                          /* (P, R/2) */
    ROPE_SIN,                          /* (P, R/2) */
    ROPE_POSITIONS,                    /* (batches, rows), int64 */
    ROPE_LENGTHS,                      /* (batches), int64 */
    ROPE_WEIGHT,                       /* (features), attn_rms_norm's */
    ROPE_TENSORS
};

/* All memory of a call in one block, so that two of them can be compared. */
typedef struct rope_memory {
    float input[ROPE_ELEMENTS];
    float output[ROPE_ELEMENTS];
    float frequencies[ROPE_DIM / 2];
    float cosines[ROPE_PLACES * ROPE_DIM / 2];
    float sines[ROPE_PLACES * ROPE_DIM / 2];
    int64_t positions[ROPE_BATCHES * ROPE_ROWS]; /* 0, 1, 2 in each batch */
    int64_t lengths[ROPE_BATCHES];               /* all rows */
    float weight[ROPE_FEATURES];
} rope_memory;

typedef struct rope_fixture {
    rope_memory memory;
    attn_context *context;
    attn_tensor views[ROPE_TENSORS];
    const attn_tensor *arguments[ROPE_ARGUMENTS];
    attn_rope_params options; /* rotary_dim alone */
    const attn_rope_params *params;
    attn_rms_norm_params norm_options;
    const attn_rms_norm_params *norm_params;
} rope_fixture;

/* Makes the valid calls. The output holds the canary. */
void rope_fixture_prepare(rope_fixture *fixture, attn_context *context);

/* Puts an optional view into the options. */
void rope_fixture_link(rope_fixture *fixture, int tensor);

attn_status rope_fixture_run(rope_fixture *fixture);
attn_status rope_fixture_normalize(rope_fixture *fixture);

/* Fails the test unless output is the prepared input rotated by its rows' numbers: the first R
 * features, all without options. */
void rope_fixture_assert_values(const rope_fixture *fixture);

/* The same for the normalised input, without options. */
void rope_fixture_assert_normalized(const rope_fixture *fixture);

#endif
