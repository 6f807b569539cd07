/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_refusal.h: one entry of the error tables of attn_rope and attn_rms_norm, and the test that
 * runs it.
 */
#ifndef TESTS_ERRORS_ROPE_REFUSAL_H
#define TESTS_ERRORS_ROPE_REFUSAL_H

#include "rope_fixture.h"

typedef struct rope_refusal {
    const char *name;
    refusal_spoil spoil;              /* an option's view that is spoilt is also linked */
    attn_rope_params params;          /* the options of the function of the suite; struct_size 0: */
    attn_rms_norm_params norm_params; /* today's */
    int links[2];                     /* numbers of further options to link; 0: none */
    attn_status status;
    const char *line;
} rope_refusal;

/* The function that a suite is about. */
typedef struct rope_function {
    const char *name;
    attn_status (*run)(rope_fixture *fixture);
    void (*assert_values)(const rope_fixture *fixture);
} rope_function;
extern const rope_function rope_function_rope, rope_function_rms_norm;

/* The context the tests call with, made by rope_refusal_main. */
extern attn_context *rope_refusal_context;

/* Runs the table's entries (each fails as it says, nothing is written, and an unchanged call then
 * gives the right numbers), the test that output may be exactly input, and the further ones.
 * Returns what main returns. */
int rope_refusal_main(const rope_function *function, const rope_refusal *table, size_t count,
                      const struct CMUnitTest *further, size_t num_further);

#endif
