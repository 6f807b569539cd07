/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_check.h: the argument errors of attn_rope.
 */
#ifndef ATTNI_ROTARY_ROPE_CHECK_H
#define ATTNI_ROTARY_ROPE_CHECK_H

#include <attention/rope.h>

#include "base/error.h"
#include "rotary/rope_problem.h"

/* Finds every error of the arguments, before anything is written, and leaves the problem. */
attn_status attni_rope_check(const attn_tensor *input, const attn_rope_params *params,
                             const attn_tensor *output, attni_rope_problem *problem);

#endif
