/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_backward_case.h: attn_mha_forward cases whose gradients are computed and compared, too. What is
 * given beside that of output, what is wanted, in which type and layout, and whether it is added to
 * what is there, follows from the seed.
 */
#ifndef ATTENTION_TESTS_MHA_BACKWARD_CASE_H
#define ATTENTION_TESTS_MHA_BACKWARD_CASE_H

#include "call_run.h"

/* The factors of attn_mha_forward calls that have gradients. */
factor_set mha_backward_factor_set(void);

/* A case_runner; outcome->output is of the gradients of query, key and value, outcome->weights of
 * those of parameters, outcome->scores of those of masks. */
int mha_backward_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                          int free_lengths, call_outcome *outcome);

#endif
