/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_refusal.h: one entry of the error tables of attn_mha_forward and its three queries, and the
 * test that runs it.
 */
#ifndef TESTS_ERRORS_MHA_REFUSAL_H
#define TESTS_ERRORS_MHA_REFUSAL_H

#include "mha_fixture.h"

enum { MHA_MAX_SPOILS = 4 };

typedef struct mha_refusal {
    const char *name;                     /* subject_condition_expectation */
    refusal_spoil spoils[MHA_MAX_SPOILS]; /* an option's view that is spoilt is also linked */
    attn_mha_params params;               /* the options; struct_size 0: today's */
    attn_sdpa_params attention;           /* params.attention, with struct_size 0: today's */
    mha_cache_kind cache;                 /* params.cache, if any */
    uint64_t cache_size;                  /* its struct_size; 0: today's */
    attn_rope_params rope;                /* with struct_size 0: today's */
    bool is_ragged;                       /* rows by attention.query_starts */
    bool is_rotated;                      /* rope is given, without tensors too */
    int links[2];                         /* numbers of further options to link; 0: none */
    bool call_only; /* about memory or values, which the queries do not look at: they succeed */
    attn_status status;
    const char *line;
} mha_refusal;

/* The context and the layer the tests call, made by mha_refusal_main. */
extern attn_context *mha_refusal_context;
extern mha_layer mha_refusal_layer;

/* Fails the test unless an unchanged call succeeds, with the right numbers. */
void mha_refusal_assert_usable(void);

/* Adds the tests of a table to the suite. An entry with status ATTN_OK must succeed with the
 * numbers of the unchanged call. Any other must fail as it says, in attn_mha_forward and in its
 * queries (attn_mha_describe_outputs only if it is about inputs and options), and write nothing; an
 * unchanged call then succeeds. */
void mha_refusal_add(refusal_suite *suite, const mha_refusal *table, size_t count);

/* Makes context and layer, runs the suite, and returns what main returns. */
int mha_refusal_main(const refusal_suite *suite, const char *name);

#endif
