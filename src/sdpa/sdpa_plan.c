/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_plan.c: how a call will run. Pure: shapes, strides and options in, sizes and offsets out.
 */
#include "sdpa/sdpa_plan.h"

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

attn_status attni_sdpa_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
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
