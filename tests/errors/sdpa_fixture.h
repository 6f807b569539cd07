/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_fixture.h: a valid call of attn_sdpa with a view of every optional tensor at hand, for
 * suites that spoil one thing of it.
 */
#ifndef TESTS_ERRORS_SDPA_FIXTURE_H
#define TESTS_ERRORS_SDPA_FIXTURE_H

#include "refusal.h"

enum {
    SDPA_N = 2,
    SDPA_H = 4,
    SDPA_L = 3,
    SDPA_S = 6,
    SDPA_E = 5,
    SDPA_EV = 3,
    SDPA_DISTANCES = 5,
    SDPA_BLOCK_ROWS = 2,
    SDPA_BLOCK_COLUMNS = 4,
    SDPA_BLOCKS = 2 /* of rows, and of columns */
};

/* The views by number; the first four are the call's arguments, the others its options. */
enum sdpa_tensor {
    SDPA_QUERY,  /* (N, H, L, E) */
    SDPA_KEY,    /* (N, H, S, E) */
    SDPA_VALUE,  /* (N, H, S, Ev) */
    SDPA_OUTPUT, /* (N, H, L, Ev) */
    SDPA_ARGUMENTS,
    SDPA_MASK = SDPA_ARGUMENTS, /* (L, S), float32 */
    SDPA_BOOL_MASK,             /* (L, S) */
    SDPA_BIAS,                  /* (L, S), float32 */
    SDPA_ALIBI_SLOPES,          /* (H) */
    SDPA_SINKS,                 /* (H) */
    SDPA_KEY_LENGTHS,           /* (N) */
    SDPA_QUERY_OFFSET,          /* (N) */
    SDPA_MASK_START,            /* (N) */
    SDPA_POSITION_BIAS,         /* (H, distances) */
    SDPA_BLOCK_MASK,            /* (H, blocks, blocks), of ATTN_BLOCK_VISIBLE */
    SDPA_LSE,                   /* (N, H, L) */
    SDPA_WEIGHTS,               /* (N, H, L, S) */
    SDPA_AVERAGE_WEIGHTS,       /* (N, L, S) */
    SDPA_SCORES,                /* (N, H, L, S) */
    SDPA_TENSORS
};

/* All memory of the call in one block, so that two of them can be compared. */
typedef struct sdpa_memory {
    float query[SDPA_N * SDPA_H * SDPA_L * SDPA_E];
    float key[SDPA_N * SDPA_H * SDPA_S * SDPA_E];
    float value[SDPA_N * SDPA_H * SDPA_S * SDPA_EV];
    float output[SDPA_N * SDPA_H * SDPA_L * SDPA_EV];
    float mask[SDPA_L * SDPA_S];
    unsigned char bool_mask[SDPA_L * SDPA_S];
    float bias[SDPA_L * SDPA_S];
    float alibi_slopes[SDPA_H];
    float sinks[SDPA_H];
    int64_t key_lengths[SDPA_N];
    int64_t query_offset[SDPA_N];
    int64_t mask_start[SDPA_N];
    float position_bias[SDPA_H * SDPA_DISTANCES];
    unsigned char block_mask[SDPA_H * SDPA_BLOCKS * SDPA_BLOCKS];
    float lse[SDPA_N * SDPA_H * SDPA_L];
    float weights[SDPA_N * SDPA_H * SDPA_L * SDPA_S];
    float average_weights[SDPA_N * SDPA_L * SDPA_S];
    float scores[SDPA_N * SDPA_H * SDPA_L * SDPA_S];
} sdpa_memory;

typedef struct sdpa_fixture {
    sdpa_memory memory;
    attn_context *context;
    attn_tensor views[SDPA_TENSORS];
    const attn_tensor *arguments[SDPA_ARGUMENTS];
    attn_sdpa_params options;
    const attn_sdpa_params *params; /* &options; a test may point it elsewhere */
    void *workspace;
    size_t workspace_bytes;
} sdpa_fixture;

/* Makes the valid call, without options. Outputs hold the canary. */
void sdpa_fixture_prepare(sdpa_fixture *fixture, attn_context *context);

/* Puts an optional view into the options; a mask's kind is the caller's to set. */
void sdpa_fixture_link(sdpa_fixture *fixture, int tensor);

attn_status sdpa_fixture_run(sdpa_fixture *fixture);
attn_status sdpa_fixture_workspace_bytes(sdpa_fixture *fixture, size_t *bytes);
attn_status sdpa_fixture_explain(sdpa_fixture *fixture, attn_sdpa_report *report);
attn_status sdpa_fixture_describe_outputs(sdpa_fixture *fixture, attn_sdpa_outputs *outputs);

/* Fails the test unless output is the attention of the prepared query, key and value without
 * options. */
void sdpa_fixture_assert_values(const sdpa_fixture *fixture);

#endif
