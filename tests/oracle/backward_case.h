/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_case.h: attn_sdpa cases whose gradients are computed and compared, too. What is given
 * beside that of output, what is wanted, in which type and layout, and whether it is added to what
 * is there, follows from the seed.
 */
#ifndef ATTENTION_TESTS_BACKWARD_CASE_H
#define ATTENTION_TESTS_BACKWARD_CASE_H

#include "call_run.h"

/* The factors of attn_sdpa calls that have gradients. */
factor_set backward_factor_set(void);

/* A case_runner; outcome->output is of the gradients of query, key and value, outcome->weights of
 * those of masks and biases, outcome->lse of those of slopes and sinks. */
int backward_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                      int free_lengths, call_outcome *outcome);

#endif
