/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_refusal.h: one entry of the error tables of attn_sdpa and its three queries, and the test that
 * runs it.
 */
#ifndef TESTS_ERRORS_SDPA_REFUSAL_H
#define TESTS_ERRORS_SDPA_REFUSAL_H

#include "sdpa_fixture.h"

enum { SDPA_MAX_SPOILS = 4 };

typedef struct sdpa_refusal {
    const char *name;                      /* subject_condition_expectation */
    refusal_spoil spoils[SDPA_MAX_SPOILS]; /* an option's view that is spoilt is also linked */
    attn_sdpa_params params;               /* added to the valid call's; struct_size 0: today's */
    int links[2];                          /* numbers of further options to link; 0: none */
    bool call_only; /* about memory or values, which the queries do not look at: they succeed */
    attn_status status;
    const char *line;
} sdpa_refusal;

/* The context the tests call with, made by sdpa_refusal_main. */
extern attn_context *sdpa_refusal_context;

/* Fails the test unless an unchanged call succeeds, with the right numbers. */
void sdpa_refusal_assert_usable(void);

/* Adds the tests of a table to the suite. An entry with status ATTN_OK must succeed with the
 * numbers of the unchanged call. Any other must fail as it says in attn_sdpa and in its queries
 * (attn_sdpa_describe_outputs only if it is about inputs and options) and write nothing; an
 * unchanged call then succeeds. */
void sdpa_refusal_add(refusal_suite *suite, const sdpa_refusal *table, size_t count);

/* Makes the context, runs the suite, and returns what main returns. */
int sdpa_refusal_main(const refusal_suite *suite, const char *name);

#endif
