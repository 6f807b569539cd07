/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa.c: the public attention calls. Each checks and plans; one runs, one tells the workspace, one
 * explains.
 */
#include <attention/sdpa.h>

#include "base/versioned_struct.h"
#include "base/workspace.h"
#include "context/context.h"
#include "problem/sdpa_check.h"
#include "problem/sdpa_options.h"
#include "sdpa/sdpa_plan.h"
#include "sdpa/sdpa_report.h"
#include "sdpa/sdpa_run.h"

/* The tensors of a call, as the public functions share them. */
typedef struct sdpa_arguments {
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_sdpa_params *params;
    const attn_tensor *output;
} sdpa_arguments;

/* No output may touch an input or another output. */
static attn_status check_overlap(const sdpa_arguments *arguments, const attn_sdpa_params *params) {
    const attni_argument outputs[] = {
        {"output", arguments->output}, {"lse", params->lse}, {"weights", params->weights}};
    const attni_argument inputs[] = {{"query", arguments->query},
                                     {"key", arguments->key},
                                     {"value", arguments->value},
                                     {"mask", params->mask},
                                     {"query_offset", params->query_offset},
                                     {"key_lengths", params->key_lengths},
                                     {"alibi_slopes", params->alibi_slopes},
                                     {"sinks", params->sinks}};
    return attni_check_outputs(outputs, (int32_t)(sizeof outputs / sizeof outputs[0]), inputs,
                               (int32_t)(sizeof inputs / sizeof inputs[0]));
}

/* Everything before the run; *params are today's. */
static attn_status prepare(attn_context *context, const sdpa_arguments *arguments,
                           attni_data_rule data_rule, attn_sdpa_params *params,
                           attni_sdpa_problem *problem, attni_sdpa_plan *plan) {
    ATTNI_TRY(attni_sdpa_read_params("params", arguments->params, params));
    const attni_sdpa_request request = {
        .query = arguments->query,
        .key = arguments->key,
        .value = arguments->value,
        .output = arguments->output,
        .params = params,
        .option_prefix = "",
        .tensor_data = data_rule,
        .option_data = data_rule,
    };
    ATTNI_TRY(attni_sdpa_check(&request, problem));
    if (data_rule == ATTNI_DATA_REQUIRED) {
        ATTNI_TRY(check_overlap(arguments, params));
    }
    return attni_sdpa_make_plan(context, problem, plan);
}

attn_status attn_sdpa(attn_context *context, const attn_tensor *query, const attn_tensor *key,
                      const attn_tensor *value, const attn_sdpa_params *params,
                      const attn_tensor *output, void *workspace, size_t workspace_bytes) {
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    const sdpa_arguments arguments = {query, key, value, params, output};
    attn_sdpa_params options;
    attni_sdpa_problem problem;
    attni_sdpa_plan plan;
    ATTNI_TRY(prepare(context, &arguments, ATTNI_DATA_REQUIRED, &options, &problem, &plan));
    ATTNI_TRY(attni_workspace_check(&plan.layout, workspace, workspace_bytes));
    attni_workspace scratch;
    ATTNI_TRY(attni_workspace_acquire(&plan.layout, attni_context_allocator(context), workspace,
                                      &scratch));
    const attn_status status =
        attni_sdpa_run(context, &problem, &plan, scratch.base, options.report);
    attni_workspace_release(&scratch, attni_context_allocator(context));
    return status;
}

attn_status attn_sdpa_workspace_bytes(attn_context *context, const attn_tensor *query,
                                      const attn_tensor *key, const attn_tensor *value,
                                      const attn_sdpa_params *params, const attn_tensor *output,
                                      size_t *bytes) {
    attni_error_clear();
    if (bytes == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    ATTNI_TRY(attni_context_resolve(context, &context));
    const sdpa_arguments arguments = {query, key, value, params, output};
    attn_sdpa_params options;
    attni_sdpa_problem problem;
    attni_sdpa_plan plan;
    ATTNI_TRY(prepare(context, &arguments, ATTNI_DATA_IGNORED, &options, &problem, &plan));
    return attni_layout_bytes(&plan.layout, bytes);
}

attn_status attn_sdpa_explain(attn_context *context, const attn_tensor *query,
                              const attn_tensor *key, const attn_tensor *value,
                              const attn_sdpa_params *params, const attn_tensor *output,
                              attn_sdpa_report *report) {
    attni_error_clear();
    ATTNI_TRY(
        attni_struct_check_output("report", report, ATTNI_BYTES_THROUGH(attn_sdpa_report, reason)));
    ATTNI_TRY(attni_context_resolve(context, &context));
    const sdpa_arguments arguments = {query, key, value, params, output};
    attn_sdpa_params options;
    attni_sdpa_problem problem;
    attni_sdpa_plan plan;
    ATTNI_TRY(prepare(context, &arguments, ATTNI_DATA_IGNORED, &options, &problem, &plan));
    const attn_sdpa_report known = attni_sdpa_report_of(context, &plan);
    attni_struct_write(report, &known, sizeof known);
    return ATTN_OK;
}
