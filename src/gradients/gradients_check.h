/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_check.h: every argument error of the backward pass but overlap.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_CHECK_H
#define ATTNI_GRADIENTS_GRADIENTS_CHECK_H

#include <attention/backward.h>

#include "gradients/gradients_problem.h"
#include "tensor/tensor_check.h"

/* What messages call the gradients. */
typedef struct attni_gradients_names {
    const char *of_struct; /* itself */
    const char *prefix;    /* of its numbers */
    const char *output;
    const char *lse;
    const char *weights;
    const char *query;
    const char *key;
    const char *value;
    const char *mask;
    const char *bias;
    const char *position_bias;
    const char *alibi_slopes;
    const char *sinks;
} attni_gradients_names;

extern const attni_gradients_names attni_names_of_gradients; /* gradients.output, ... */

/* From attn_sdpa_backward, or from a layer that has query, key and value itself. With today's
 * structs. */
typedef struct attni_gradients_request {
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *output;
    const attn_sdpa_params *params; /* without what backward ignores */
    const attn_sdpa_gradients *gradients;
    const attni_gradients_names *names;
    const char *option_prefix;    /* before the options' names in messages: "" or "attention." */
    attni_data_rule tensor_data;  /* of query, key, value, output and their gradients */
    attni_data_rule option_data;  /* of everything else */
    const attn_tensor *extra_key; /* as in attni_sdpa_request; their gradients are the caller's */
    const attn_tensor *extra_value;
    int32_t dtype; /* likewise */
} attni_gradients_request;

/* Reads the caller's struct of any version into today's. */
attn_status attni_gradients_read(const attni_gradients_names *names,
                                 const attn_sdpa_gradients *given, attn_sdpa_gradients *gradients);

attn_status attni_gradients_check(const attni_gradients_request *request,
                                  attni_gradients_problem *problem);

#endif
