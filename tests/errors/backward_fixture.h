/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_fixture.h: the fixture's call of attn_sdpa and a valid call of attn_sdpa_backward behind
 * it, for suites that spoil one thing of it.
 */
#ifndef TESTS_ERRORS_BACKWARD_FIXTURE_H
#define TESTS_ERRORS_BACKWARD_FIXTURE_H

#include "sdpa_fixture.h"

/* The gradients by number, behind the views of the forward call. */
enum backward_tensor {
    BACKWARD_OF_OUTPUT = SDPA_TENSORS, /* given: (N, H, L, Ev) */
    BACKWARD_OF_LSE,                   /* given, an option: (N, H, L) */
    BACKWARD_OF_WEIGHTS,               /* given, an option: (N, H, L, S) */
    BACKWARD_OF_QUERY,
    BACKWARD_OF_KEY,
    BACKWARD_OF_VALUE,
    BACKWARD_OF_MASK, /* options, from here on */
    BACKWARD_OF_BIAS,
    BACKWARD_OF_POSITION_BIAS,
    BACKWARD_OF_ALIBI_SLOPES,
    BACKWARD_OF_SINKS,
    BACKWARD_TENSORS
};

/* The gradients' memory in one block, so that two of them can be compared. */
typedef struct backward_memory {
    float of_output[SDPA_N * SDPA_H * SDPA_L * SDPA_EV];
    float of_lse[SDPA_N * SDPA_H * SDPA_L];
    float of_weights[SDPA_N * SDPA_H * SDPA_L * SDPA_S];
    float of_query[SDPA_N * SDPA_H * SDPA_L * SDPA_E];
    float of_key[SDPA_N * SDPA_H * SDPA_S * SDPA_E];
    float of_value[SDPA_N * SDPA_H * SDPA_S * SDPA_EV];
    float of_mask[SDPA_L * SDPA_S];
    float of_bias[SDPA_L * SDPA_S];
    float of_position_bias[SDPA_H * SDPA_DISTANCES];
    float of_alibi_slopes[SDPA_H];
    float of_sinks[SDPA_H];
} backward_memory;

typedef struct backward_fixture {
    sdpa_fixture call; /* with lse; its outputs are written */
    backward_memory memory;
    attn_tensor views[BACKWARD_TENSORS]; /* the call's, which are these, and the gradients */
    attn_sdpa_gradients options;
    const attn_sdpa_gradients *gradients; /* &options; a test may point it elsewhere */
    void *workspace;
    size_t workspace_bytes;
} backward_fixture;

/* Makes the forward call without options, and the backward call of query, key and value. What is
 * wanted holds the canary. */
void backward_fixture_prepare(backward_fixture *fixture, attn_context *context);

/* Puts an optional view of either call into its options; a mask's kind is the caller's to set. */
void backward_fixture_link(backward_fixture *fixture, int tensor);

/* Leaves a tensor out of either call. */
void backward_fixture_drop(backward_fixture *fixture, int tensor);

attn_status backward_fixture_run(backward_fixture *fixture);
attn_status backward_fixture_workspace_bytes(backward_fixture *fixture, size_t *bytes);
attn_status backward_fixture_explain(backward_fixture *fixture, attn_sdpa_backward_report *report);

/* Fails the test unless the gradients are those of the prepared call without options. */
void backward_fixture_assert_values(const backward_fixture *fixture);

#endif
