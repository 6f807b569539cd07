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

#endif
