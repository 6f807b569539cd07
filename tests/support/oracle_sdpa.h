/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_sdpa.h: the text of attention/sdpa.h in float64: broadcasting of batch axes and heads,
 * then one head at a time.
 */
#ifndef ATTENTION_TESTS_ORACLE_SDPA_H
#define ATTENTION_TESTS_ORACLE_SDPA_H

#include <attention/sdpa.h>

#include "support/oracle_attention.h"

/* The axes of a call's output, (batch axes, Hq, L, Ev), as many as the tensor of the highest rank
 * has. */
typedef struct oracle_sdpa_shape {
    int32_t rank;
    int64_t shape[ATTN_MAX_RANK];
} oracle_sdpa_shape;

oracle_sdpa_shape oracle_sdpa_output_shape(const attn_tensor *query, const attn_tensor *key,
                                           const attn_tensor *value,
                                           const attn_sdpa_params *params);

/* How far kernels of this name may round the weights of a call before they weigh its values. */
double oracle_weight_unit(const char *kernels, const attn_tensor *query, const attn_tensor *key,
                          const attn_tensor *value);

/* The call on plain arrays, freed by oracle_problem_destroy. */
oracle_problem oracle_sdpa_problem(const attn_tensor *query, const attn_tensor *key,
                                   const attn_tensor *value, const attn_sdpa_params *params,
                                   double weight_unit);

/*
 * attn_sdpa(query, key, value, params) for valid arguments; params may be NULL. The flattened
 * arrays of the result are in the C order of output, lse and weights.
 */
oracle_result oracle_sdpa(const attn_tensor *query, const attn_tensor *key,
                          const attn_tensor *value, const attn_sdpa_params *params,
                          double weight_unit);

/* oracle_hidden_keys of the call, (batch axes of the output, S), freed by the caller. */
unsigned char *oracle_sdpa_hidden_keys(const attn_tensor *query, const attn_tensor *key,
                                       const attn_tensor *value, const attn_sdpa_params *params);

#endif
