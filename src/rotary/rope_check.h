/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_check.h: the argument errors of a rotation.
 */
#ifndef ATTNI_ROTARY_ROPE_CHECK_H
#define ATTNI_ROTARY_ROPE_CHECK_H

#include <attention/rope.h>

#include "base/error.h"
#include "rotary/rope_problem.h"
#include "tensor/tensor_check.h"

/* What messages call the options. */
typedef struct attni_rope_names {
    const char *prefix; /* of those that are numbers */
    const char *frequencies;
    const char *cos;
    const char *sin;
    const char *positions;
    const char *lengths;
} attni_rope_names;

extern const attni_rope_names attni_rope_own_names; /* frequencies, ... */

/* From attn_rope, or from a layer that computes the rows itself. */
typedef struct attni_rope_request {
    const attn_tensor *input;
    const attn_tensor *output;
    const attn_rope_params *params; /* already read by attni_rope_read_params */
    const attni_rope_names *names;
    const attn_tensor *starts;   /* NULL, or (B + 1), checked already: rows of B sequences, to which
                                  lengths belong; input then has no batch axes */
    attni_data_rule tensor_data; /* of input and output; ignored, overlap is not looked at either */
    attni_data_rule option_data; /* of everything in params */
} attni_rope_request;

/* Today's form of a caller's struct. */
attn_status attni_rope_read_params(const char *name, const attn_rope_params *given,
                                   attn_rope_params *params);

/* Finds every error of the arguments, before anything is written, and leaves the problem. */
attn_status attni_rope_check(const attni_rope_request *request, attni_rope_problem *problem);

#endif
