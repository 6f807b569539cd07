/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_runs.h: calls of ragged queries. Their runs of equally long sequences (query_runs.h) each
 * have the plan that they would have alone; the items of all are dealt to the threads as one list,
 * so that many short sequences keep all of them busy.
 */
#ifndef ATTNI_FUSED_FUSED_RUNS_H
#define ATTNI_FUSED_FUSED_RUNS_H

#include "base/workspace.h"
#include "context/context.h"
#include "fused/fused_plan.h"

/* The scratch memory of all runs, as offsets into the call's. */
typedef struct attni_fused_runs_plan {
    int64_t num_runs; /* there is room for; 0: nothing is to be computed */
    int32_t num_slots;
    size_t runs_offset;
    size_t partials_offset; /* what spread chunks put aside, of as many runs as fit */
    size_t partials_bytes;
    size_t slots_offset;
    size_t slot_bytes; /* a run on its way, and what its plan wants of a slot */
} attni_fused_runs_plan;

/* Of whatever runs there may be: `whole` is the call as one sequence, with its plan. */
void attni_fused_bound_runs_plan(const attn_context *context, const attni_sdpa_problem *whole,
                                 const attni_fused_plan *plan, attni_layout *layout);

/* Of those that the starts make, which are read. */
attn_status attni_fused_make_runs_plan(const attn_context *context,
                                       const attni_sdpa_problem *problem,
                                       attni_fused_runs_plan *plan, attni_layout *layout);

/* Computes all runs in a block of the plan's layout and counts their items into *num_blocks. Where
 * another thread has changed the starts so that they need more memory, fails with ATTN_ERROR_VALUE
 * before anything is written. */
attn_status attni_fused_run_runs(attn_context *context, const attni_sdpa_problem *problem,
                                 const attni_fused_runs_plan *plan, char *scratch,
                                 int64_t *num_blocks);

#endif
