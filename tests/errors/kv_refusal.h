/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_refusal.h: one entry of the error tables of attn_sdpa with kv, and the test that runs it.
 */
#ifndef TESTS_ERRORS_KV_REFUSAL_H
#define TESTS_ERRORS_KV_REFUSAL_H

#include "kv_fixture.h"

enum { KV_MAX_SPOILS = 6, KV_MAX_LINKS = 2 };

typedef struct kv_refusal {
    const char *name; /* subject_condition_expectation */
    kv_kind kind;     /* of the valid call */
    bool is_ragged;
    refusal_spoil spoils[KV_MAX_SPOILS]; /* what is spoilt is given, too */
    int links[KV_MAX_LINKS];             /* numbers of further tensors to give; 0: none */
    attn_sdpa_params options;            /* without tensors and struct_size */
    uint64_t kv_size;                    /* of the kv; 0: today's */
    bool call_only; /* about memory or values, which the queries do not look at: they succeed */
    attn_status status;
    const char *line;
} kv_refusal;

/* Adds the tests of a table to the suite. An entry with status ATTN_OK must succeed with the right
 * numbers. Any other must fail as it says in attn_sdpa and in its queries
 * (attn_sdpa_describe_outputs only if it is about inputs and options) and write nothing; an
 * unchanged call then succeeds. */
void kv_refusal_add(refusal_suite *suite, const kv_refusal *table, size_t count);

/* Makes the context, runs the suite, and returns what main returns. */
int kv_refusal_main(const refusal_suite *suite, const char *name);

#endif
