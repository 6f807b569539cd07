/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_plan.h: how the fused engine cuts a call.
 */
#ifndef ATTNI_FUSED_FUSED_PLAN_H
#define ATTNI_FUSED_FUSED_PLAN_H

#include "base/workspace.h"
#include "context/context.h"
#include "fused/fused_state.h"

/* Makes *layout large enough for the plans of all calls that `problem`, a sequence with its rows
 * and *plan, is made of if those rows are cut into runs of sequences with as many each. */
void attni_fused_bound_runs(const attn_context *context, const attni_sdpa_problem *problem,
                            const attni_fused_plan *plan, attni_layout *layout);

/* Fills an empty plan and adds its scratch memory to a layout. */
attn_status attni_fused_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                  attni_fused_plan *plan, attni_layout *layout);

#endif
