/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_refusal.h: one entry of the error tables of attn_sdpa_backward and its two queries, and
 * the test that runs it.
 */
#ifndef TESTS_ERRORS_BACKWARD_REFUSAL_H
#define TESTS_ERRORS_BACKWARD_REFUSAL_H

#include "backward_fixture.h"

enum { BACKWARD_MAX_SPOILS = 2, BACKWARD_MAX_LINKS = 2 };

typedef struct backward_refusal {
    const char *name;              /* subject_condition_expectation */
    attn_sdpa_params params;       /* added to the valid call's; lse is linked */
    int links[BACKWARD_MAX_LINKS]; /* numbers of options of either call to link; 0: none */
    refusal_spoil spoils[BACKWARD_MAX_SPOILS]; /* a gradient that is spoilt is also linked */
    int32_t accumulate;
    int32_t reserved;
    bool call_only; /* about memory or values, which the queries do not look at: they succeed */
    attn_status status;
    const char *line;
} backward_refusal;

/* The context the tests call with, made by backward_refusal_main. */
extern attn_context *backward_refusal_context;

/* Fails the test unless an unchanged call succeeds, with the right numbers. */
void backward_refusal_assert_usable(void);

/* Adds the tests of a table to the suite. An entry must fail as it says in attn_sdpa_backward and in
 * its queries and write nothing; an unchanged call then succeeds. */
void backward_refusal_add(refusal_suite *suite, const backward_refusal *table, size_t count);

/* Makes the context, runs the suite, and returns what main returns. */
int backward_refusal_main(const refusal_suite *suite, const char *name);

#endif
