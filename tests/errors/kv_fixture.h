/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_fixture.h: valid calls of attn_sdpa whose keys and values lie in each of the ways that kv.h
 * has, for suites that spoil one thing of them.
 */
#ifndef TESTS_ERRORS_KV_FIXTURE_H
#define TESTS_ERRORS_KV_FIXTURE_H

#include "refusal.h"

enum {
    KV_N = 2,
    KV_H = 2,
    KV_L = 3,
    KV_E = 4,
    KV_EV = 3,
    KV_C = 6,        /* room for keys in each cache */
    KV_TOTAL = 12,   /* rows of key where sequences lie one behind the other */
    KV_PAGES = 7,    /* there are, */
    KV_PAGE = 2,     /* rows of each, */
    KV_M = 3,        /* and entries of a sequence in the table; */
    KV_ENTRIES = 5,  /* in one of all sequences */
    KV_ROWS = 6,     /* of ragged queries, the last two nobody's */
    KV_MOST_KEYS = 5 /* of a sequence */
};

/* Where keys and values lie. */
typedef enum kv_kind { KV_CACHES, KV_BEHIND, KV_PAGED, KV_LISTED } kv_kind;

/* The views by number. Not every call has all of them: KV_QUERY to KV_LENGTHS are there, and of
 * KV_PAGE_TABLE to KV_QUERY_STARTS those of its kind. */
enum kv_tensor {
    KV_QUERY,  /* (N, H, L, E), or ragged (H, ROWS, E) */
    KV_KEY,    /* (N, H, C, E), (H, TOTAL, E), or (PAGES, H, PAGE, E) */
    KV_VALUE,  /* likewise, with Ev */
    KV_OUTPUT, /* as query, with Ev */
    KV_LENGTHS,
    KV_PAGE_TABLE, /* (N, M) or (ENTRIES) */
    KV_PAGE_STARTS,
    KV_STARTS,
    KV_QUERY_STARTS,
    KV_PLAIN_KEY, /* the call's own arguments, which are NULL beside kv, */
    KV_PLAIN_VALUE,
    KV_KEY_LENGTHS, /* and option */
    KV_MASK,        /* (L, C) or (ROWS, C), float32, of zeroes */
    KV_BIAS,        /* likewise */
    KV_LSE,
    KV_WEIGHTS,   /* as output, with C */
    KV_KEY_SCALE, /* one for the tensor, float32 */
    KV_VALUE_SCALE,
    KV_KEY_ZERO,
    KV_VALUE_ZERO,
    KV_TENSORS
};

/* All memory of the call in one block, so that two of them can be compared. */
typedef struct kv_memory {
    float query[KV_N * KV_H * KV_L * KV_E];
    float key[KV_PAGES * KV_H * KV_PAGE * KV_E];
    float value[KV_PAGES * KV_H * KV_PAGE * KV_EV];
    float output[KV_N * KV_H * KV_L * KV_EV];
    int64_t lengths[KV_N];
    int64_t page_table[KV_N * KV_M];
    int64_t page_starts[KV_N + 1];
    int64_t starts[KV_N + 1];
    int64_t query_starts[KV_N + 1];
    float mask[KV_ROWS * KV_C];
    float bias[KV_ROWS * KV_C];
    float lse[KV_N * KV_H * KV_L];
    float weights[KV_N * KV_H * KV_L * KV_C];
    float numbers[4]; /* scales and zeros */
} kv_memory;

typedef struct kv_fixture {
    kv_memory memory;
    attn_context *context;
    kv_kind kind;
    bool is_ragged;
    attn_tensor views[KV_TENSORS];
    const attn_tensor *arguments[KV_TENSORS]; /* NULL: not given */
    attn_sdpa_params options;                 /* without tensors */
    uint64_t kv_size;                         /* struct_size of the kv; 0: today's */
    void *workspace;
    size_t workspace_bytes;
} kv_fixture;

/* Makes the valid call, without options but lengths. Outputs hold the canary. */
void kv_fixture_prepare(kv_fixture *fixture, attn_context *context, kv_kind kind, bool is_ragged);

attn_status kv_fixture_run(kv_fixture *fixture);
attn_status kv_fixture_workspace_bytes(kv_fixture *fixture, size_t *bytes);
attn_status kv_fixture_explain(kv_fixture *fixture, attn_sdpa_report *report);
attn_status kv_fixture_describe_outputs(kv_fixture *fixture, attn_sdpa_outputs *outputs);
attn_status kv_fixture_run_backward(kv_fixture *fixture, const attn_sdpa_gradients *gradients);

/* Fails the test unless output is the attention of each sequence to as many keys as memory.lengths
 * says, and rows of no sequence hold the canary. */
void kv_fixture_assert_values(const kv_fixture *fixture);

#endif
