/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_plan.h: which engine computes a call, and that engine's own plan.
 */
#ifndef ATTNI_SDPA_SDPA_PLAN_H
#define ATTNI_SDPA_SDPA_PLAN_H

#include "blas/blas_plan.h"
#include "fused/fused_plan.h"
#include "fused/fused_runs.h"
#include "problem/query_runs.h"
#include "sdpa/sdpa_scores.h"

/* How a call will run. Depends on shapes, strides, options and the context, never on values, nor on
 * the number of threads but for how many pieces of scratch memory there are. */
typedef struct attni_sdpa_plan {
    int32_t engine;
    const char *reason;     /* for it */
    attni_fused_plan fused; /* of the two the engine's own; the other stays empty */
    attni_blas_plan blas;
    attni_scores_plan scores;
    attni_fused_runs_plan runs; /* of ragged queries, in the fused engine's place */
    attni_layout layout;        /* of all scratch memory */
    bool starts_threads;        /* some run of ragged queries is large enough for several */
} attni_sdpa_plan;

attn_status attni_sdpa_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                 attni_sdpa_plan *plan);

/* Whether a call, not of ragged queries, has its work done by threads. */
bool attni_sdpa_wants_threads(const attni_sdpa_plan *plan);

/* Where sequences have query rows of their own number (query_runs.h) the plan above is for whatever
 * their starts are. This reads the starts there are, and makes its threads theirs; its scratch
 * memory too, unless the caller has given what is there for any. */
attn_status attni_sdpa_plan_runs(const attn_context *context, const attni_sdpa_problem *problem,
                                 bool has_workspace, attni_sdpa_plan *plan);

/* The plan, within the memory of the call's, of what is done run by run: all but what the fused
 * engine does for all runs together. Fails with ATTN_ERROR_VALUE where another
 * thread has made the runs larger than they were. */
attn_status attni_sdpa_plan_run(const attn_context *context, const attni_sdpa_problem *run,
                                const attni_sdpa_plan *plan, attni_sdpa_plan *own);

#endif
