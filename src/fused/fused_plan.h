/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_plan.h: how the fused engine cuts a call.
 */
#ifndef ATTNI_FUSED_FUSED_PLAN_H
#define ATTNI_FUSED_FUSED_PLAN_H

#include "base/workspace.h"
#include "context/context.h"
#include "fused/fused_state.h"

/* Bytes that spread chunks may put aside: where there are so many rows that they would exceed it,
 * there are several blocks of them. */
enum { ATTNI_MOST_PARTIALS = 10 << 20 };

/* Fills an empty plan and adds its scratch memory to a layout. */
attn_status attni_fused_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                  attni_fused_plan *plan, attni_layout *layout);

typedef struct attni_fused_bounds {
    size_t slot_bytes;
    size_t partials_bytes; /* of all runs, or as many as a run may have at most */
} attni_fused_bounds;

/* What is enough for the plans of all runs of equally long sequences into which the rows of
 * `problem`, one sequence with that plan, may be cut. Only layout->overflow may change. */
attni_fused_bounds attni_fused_bound_runs(const attn_context *context,
                                          const attni_sdpa_problem *problem,
                                          const attni_fused_plan *plan, attni_layout *layout);

#endif
