/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_run.h: rotates.
 */
#ifndef ATTNI_ROTARY_ROPE_RUN_H
#define ATTNI_ROTARY_ROPE_RUN_H

#include "context/context.h"
#include "rotary/rope_problem.h"

attn_status attni_rope_run(attn_context *context, const attni_rope_problem *problem);

#endif
