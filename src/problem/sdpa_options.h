/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_options.h: the rules for everything in attn_sdpa_params.
 */
#ifndef ATTNI_PROBLEM_SDPA_OPTIONS_H
#define ATTNI_PROBLEM_SDPA_OPTIONS_H

#include "problem/key_source.h"
#include "problem/sdpa_problem.h"
#include "problem/sdpa_request.h"

/* Reads the caller's struct of any version into today's. `name` is the argument, for messages. */
attn_status attni_sdpa_read_params(const char *name, const attn_sdpa_params *given,
                                   attn_sdpa_params *params);

/* Everything in params, given the sizes and batch axes in *problem; fills the rest of it. */
attn_status attni_sdpa_check_options(const attni_sdpa_request *request,
                                     const attni_input_views *inputs, attni_sdpa_problem *problem);

/* Which axes a tensor of the call's rows has beside its batch axes and rows, and the type whose
 * results it holds. */
typedef struct attni_row_axes {
    bool heads;
    int64_t cols; /* -1: no column axis */
    int32_t dtype;
} attni_row_axes;

/* Those of weights, or of their mean over the heads. */
attni_row_axes attni_weights_axes(const attni_sdpa_problem *problem, const attn_tensor *weights);

/* A tensor of the call's rows, written or read. */
attn_status attni_check_rows(const char *name, const attn_tensor *tensor, attni_data_rule data_rule,
                             const attni_sdpa_problem *problem, attni_row_axes which,
                             attni_operand *operand);

#endif
