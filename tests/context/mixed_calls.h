/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mixed_calls.h: calls of every kind on one context, one layer and constant inputs, that many
 * threads may make at once: layers and bare attention, both types, short and long, with options.
 */
#ifndef TESTS_CONTEXT_MIXED_CALLS_H
#define TESTS_CONTEXT_MIXED_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/attention.h>

enum { MIXED_EMBED = 32, MIXED_HEADS = 4, MIXED_LONGEST = 200, MIXED_MOST_BYTES = 1 << 20 };

/* What all callers share; nobody writes it while they run. */
typedef struct mixed_calls {
    attn_mha *layer;
    void *inputs[2];    /* of float and of double */
    void *expected[32]; /* of each call, by a lone caller on one thread */
} mixed_calls;

/* The number of different calls. */
int mixed_calls_count(void);

/* Whether a call's tensors are of float32, not of float64. */
bool mixed_call_is_float32(int which);

/* Makes the layer, the inputs and every expected result. Ends the test on a failure. */
void mixed_calls_create(mixed_calls *calls);
void mixed_calls_destroy(mixed_calls *calls);

/* A context whose results do not depend on a BLAS's own threads. */
attn_context *mixed_context(int32_t num_threads, int32_t engine);

/* Makes call number `which` with a context and layer, its results into `memory` of MIXED_MOST_BYTES
 * bytes. */
attn_status mixed_call_run(const mixed_calls *calls, attn_context *context, const attn_mha *layer,
                           int which, void *memory);

/* Whether `memory` holds the bits of the lone caller's results. */
bool mixed_call_is_expected(const mixed_calls *calls, int which, const void *memory);

/* Both in one: 0, or 1 for a failed call or other bits. */
int mixed_call_mismatch(const mixed_calls *calls, attn_context *context, int which, void *memory);

/* The largest |actual - expected| / (1 + |expected|) of a call's results, in roundoffs of its type.
 * What is not finite counts 0 if it is equal, or both are NaN, and else is infinite. */
double mixed_call_error(const mixed_calls *calls, int which, const void *memory);

#endif
