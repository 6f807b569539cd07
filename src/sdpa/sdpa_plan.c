/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_plan.c: how a call will run. Pure: shapes, strides and options in, sizes and offsets out.
 */
#include "sdpa/sdpa_plan.h"

#include "base/checked_size.h"

/* The fused engine is the faster one for every shape; it computes in float32 only. */
static attn_status choose_engine(const attn_context *context, const attni_sdpa_problem *problem,
                                 attni_sdpa_plan *plan) {
    const int32_t wanted = attni_context_engine(context);
    const bool is_float32 = problem->score_dtype == ATTN_DTYPE_FLOAT32;
    plan->engine = wanted;
    if (wanted == ATTN_ENGINE_AUTO) {
        plan->engine = is_float32 ? ATTN_ENGINE_FUSED : ATTN_ENGINE_BLAS;
        plan->reason = is_float32 ? "the fused engine is the fastest for this type"
                                  : "the fused engine has no float64";
        return ATTN_OK;
    }
    if (wanted == ATTN_ENGINE_FUSED && !is_float32) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "query: expected float32, bfloat16 or float16, which the context's "
                          "ATTN_ENGINE_FUSED computes, got float64; use ATTN_ENGINE_AUTO");
    }
    plan->reason = wanted == ATTN_ENGINE_FUSED ? "the context asks for the fused engine"
                                               : "the context asks for the BLAS engine";
    return ATTN_OK;
}

/* As many query rows for each sequence. */
static attn_status plan_whole(const attn_context *context, const attni_sdpa_problem *problem,
                              attni_sdpa_plan *plan) {
    *plan = (attni_sdpa_plan){0};
    ATTNI_TRY(choose_engine(context, problem, plan));
    ATTNI_TRY(plan->engine == ATTN_ENGINE_FUSED
                  ? attni_fused_make_plan(context, problem, &plan->fused, &plan->layout)
                  : attni_blas_make_plan(context, problem, &plan->blas, &plan->layout));
    attni_scores_make_plan(context, problem, &plan->scores, &plan->layout);
    size_t bytes;
    return attni_layout_bytes(&plan->layout, &bytes);
}

bool attni_sdpa_wants_threads(const attni_sdpa_plan *plan) {
    return plan->fused.num_slots > 1 || plan->blas.is_parallel || plan->scores.num_slots > 1 ||
           plan->starts_threads;
}

/* Of all runs that the rows may make, whatever their starts: that of a sequence with all rows, with
 * scratch memory for the others. */
attn_status attni_sdpa_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                 attni_sdpa_plan *plan) {
    if (!problem->query_starts.is_present) {
        return plan_whole(context, problem, plan);
    }
    const attni_sdpa_problem whole = attni_run_of(problem, 0, attni_min(1, problem->num_batches),
                                                  (attni_interval){0, problem->tgt_len});
    ATTNI_TRY(plan_whole(context, &whole, plan));
    if (plan->engine == ATTN_ENGINE_FUSED) {
        attni_fused_bound_runs_plan(context, &whole, &plan->fused, &plan->layout);
    }
    attni_scores_bound_runs(context, &whole, &plan->scores, &plan->layout);
    size_t bytes;
    return attni_layout_bytes(&plan->layout, &bytes);
}

/* What is done run by run: the fused engine has all runs together. */
static attn_status plan_run(const attn_context *context, const attni_sdpa_problem *run,
                            attni_sdpa_plan *own) {
    *own = (attni_sdpa_plan){0};
    ATTNI_TRY(choose_engine(context, run, own));
    if (own->engine == ATTN_ENGINE_BLAS) {
        ATTNI_TRY(attni_blas_make_plan(context, run, &own->blas, &own->layout));
    }
    attni_scores_make_plan(context, run, &own->scores, &own->layout);
    size_t bytes;
    return attni_layout_bytes(&own->layout, &bytes);
}

/* Of a call whose starts are what they were when they were checked. */
static attn_status check_room(const attni_layout *needed, const attni_sdpa_plan *plan) {
    return !needed->overflow && needed->bytes <= plan->layout.bytes
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_VALUE,
                            "query_starts: expected nobody to write it during the call");
}

attn_status attni_sdpa_plan_runs(const attn_context *context, const attni_sdpa_problem *problem,
                                 bool has_workspace, attni_sdpa_plan *plan) {
    attni_query_runs runs = attni_query_runs_of(problem);
    attni_sdpa_problem run;
    attni_layout largest = {0};
    if (plan->engine == ATTN_ENGINE_FUSED) {
        ATTNI_TRY(attni_fused_make_runs_plan(context, problem, &plan->runs, &largest));
        plan->starts_threads = plan->runs.num_slots > 1;
    }
    while (attni_next_run(&runs, &run)) {
        attni_sdpa_plan own;
        ATTNI_TRY(plan_run(context, &run, &own));
        largest.bytes = own.layout.bytes > largest.bytes ? own.layout.bytes : largest.bytes;
        plan->starts_threads |= own.blas.is_parallel || own.scores.num_slots > 1;
    }
    if (has_workspace) {
        return check_room(&largest, plan);
    }
    plan->layout = largest;
    return ATTN_OK;
}

attn_status attni_sdpa_plan_run(const attn_context *context, const attni_sdpa_problem *run,
                                const attni_sdpa_plan *plan, attni_sdpa_plan *own) {
    ATTNI_TRY(plan_run(context, run, own));
    return check_room(&own->layout, plan);
}
