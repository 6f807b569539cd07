/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_check.h: every argument error of the backward pass but overlap.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_CHECK_H
#define ATTNI_GRADIENTS_GRADIENTS_CHECK_H

#include <attention/backward.h>

#include "gradients/gradients_problem.h"
#include "tensor/tensor_check.h"

/* A call as it comes, with today's structs. */
typedef struct attni_gradients_request {
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *output;
    const attn_sdpa_params *params; /* without what backward ignores */
    const attn_sdpa_gradients *gradients;
    attni_data_rule data;
} attni_gradients_request;

/* Reads the caller's struct of any version into today's. */
attn_status attni_gradients_read(const attn_sdpa_gradients *given, attn_sdpa_gradients *gradients);

attn_status attni_gradients_check(const attni_gradients_request *request,
                                  attni_gradients_problem *problem);

#endif
