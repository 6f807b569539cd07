/* SPDX-License-Identifier: BSD-3-Clause
 *
 * multihead.c: the public calls of a forward pass: check, plan, run, or tell what would run. No
 * arithmetic.
 */
#include <attention/multihead.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "multihead/mha_layer.h"
#include "sdpa/sdpa_report.h"

static attni_mha_request request_of(const attn_mha *layer, const attn_tensor *query,
                                    const attn_tensor *key, const attn_tensor *value,
                                    const attn_mha_params *params, const attn_tensor *output,
                                    attni_data_rule data_rule) {
    return (attni_mha_request){.layer = layer,
                               .query = query,
                               .key = key,
                               .value = value,
                               .params = params,
                               .output = output,
                               .output_name = "output",
                               .data_rule = data_rule};
}

/* Everything before the run but overlap, and before that which context NULL is. */
static attn_status prepare(attn_context **context, const attni_mha_request *request,
                           attni_mha_problem *problem, attni_mha_plan *plan) {
    ATTNI_TRY(attni_context_resolve(*context, context));
    ATTNI_TRY(attni_mha_check(request, problem));
    return attni_mha_make_plan(*context, problem, plan);
}

attn_status attn_mha_forward(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                             const attn_tensor *key, const attn_tensor *value,
                             const attn_mha_params *params, const attn_tensor *output,
                             void *workspace, size_t workspace_bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    const attni_mha_request request =
        request_of(layer, query, key, value, params, output, ATTNI_DATA_REQUIRED);
    attni_mha_problem problem;
    attni_mha_plan plan;
    ATTNI_TRY(prepare(&context, &request, &problem, &plan));
    ATTNI_TRY(attni_workspace_check(&plan.layout, workspace, workspace_bytes));
    ATTNI_TRY(attni_mha_check_saved(&problem, &plan));
    ATTNI_TRY(
        attni_mha_check_overlap(&problem, &plan, workspace, attni_workspace_reach(&plan.layout)));
    attni_workspace scratch;
    ATTNI_TRY(attni_workspace_acquire(&plan.layout, attni_context_allocator(context), workspace,
                                      &scratch));
    const attn_status status = attni_mha_run(context, &problem, &plan, scratch.base);
    attni_workspace_release(&scratch, attni_context_allocator(context));
    return status;
}

attn_status attn_mha_workspace_bytes(attn_context *context, const attn_mha *layer,
                                     const attn_tensor *query, const attn_tensor *key,
                                     const attn_tensor *value, const attn_mha_params *params,
                                     const attn_tensor *output, size_t *bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    if (bytes == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    const attni_mha_request request =
        request_of(layer, query, key, value, params, output, ATTNI_DATA_IGNORED);
    attni_mha_problem problem;
    attni_mha_plan plan;
    ATTNI_TRY(prepare(&context, &request, &problem, &plan));
    return attni_layout_bytes(&plan.layout, bytes);
}

static attn_status check_report(attn_mha_report *report) {
    ATTNI_TRY(attni_struct_check_output("report", report,
                                        ATTNI_BYTES_THROUGH(attn_mha_report, attention)));
    if (report->attention == NULL) {
        return ATTN_OK;
    }
    return attni_struct_check_output("report.attention", report->attention,
                                     ATTNI_BYTES_THROUGH(attn_sdpa_report, reason));
}

attn_status attn_mha_explain(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                             const attn_tensor *key, const attn_tensor *value,
                             const attn_mha_params *params, const attn_tensor *output,
                             attn_mha_report *report) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(check_report(report));
    const attni_mha_request request =
        request_of(layer, query, key, value, params, output, ATTNI_DATA_IGNORED);
    attni_mha_problem problem;
    attni_mha_plan plan;
    ATTNI_TRY(prepare(&context, &request, &problem, &plan));
    size_t bytes;
    ATTNI_TRY(attni_layout_bytes(&plan.layout, &bytes));
    const attn_sdpa_report attention = attni_sdpa_report_of(context, &plan.attention_plan);
    const int32_t projection_gemm = plan.projections[0].backend;
    const attn_mha_report known = {
        .struct_size = sizeof known,
        .projection_gemm = projection_gemm,
        .depends_on_blas_threads =
            projection_gemm == ATTN_GEMM_BLAS || attention.depends_on_blas_threads != 0,
        .workspace_bytes = bytes,
        .kernels = attni_context_kernels(context)->name,
        .attention = report->attention,
    };
    if (report->attention != NULL) {
        attni_struct_write(report->attention, &attention, sizeof attention);
    }
    attni_struct_write(report, &known, sizeof known);
    return ATTN_OK;
}
