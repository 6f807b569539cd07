/* SPDX-License-Identifier: BSD-3-Clause
 *
 * large_calls.h: valid calls large enough to be shared among threads, for suites in which threads
 * are not to be had.
 */
#ifndef TESTS_ERRORS_LARGE_CALLS_H
#define TESTS_ERRORS_LARGE_CALLS_H

#include "refusal.h"

enum { LARGE_ROWS = 512, LARGE_COLS = 512 };

typedef struct large_call {
    const char *name;
    int32_t engine; /* of the context that makes the call */
    /* Writes LARGE_ROWS * LARGE_COLS numbers or fewer. */
    attn_status (*run)(attn_context *context, float *output);
    int least_shared; /* steps, at least, that are shared among threads one after the other */
    bool shared_once; /* there is but one such step, at whose end the call is done */
} large_call;

extern const large_call large_calls[];
extern const size_t num_large_calls;

/* What the call writes on one thread, into LARGE_ROWS * LARGE_COLS numbers. */
void large_call_expect(const large_call *call, float *output);

/* Makes the call and fails the test unless it succeeds and writes these same bits. */
void large_call_assert(const large_call *call, attn_context *context, const float *expected);

#endif
