/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa.c: the public attention calls. Each checks and plans; one runs, one tells the workspace, one
 * explains.
 */
#include <attention/sdpa.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "base/workspace.h"
#include "context/context.h"
#include "problem/sdpa_check.h"
#include "problem/sdpa_options.h"
#include "problem/tensor_list.h"
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

static void list_tensors(const sdpa_arguments *arguments, const attn_sdpa_params *params,
                         attni_tensor_list *list) {
    list->count = 0;
    attni_list_tensor(list, "output", arguments->output);
    attni_list_tensor(list, "lse", params->lse);
    attni_list_tensor(list, "weights", params->weights);
    attni_list_tensor(list, "scores", params->scores);
    list->num_outputs = list->count;
    attni_list_tensor(list, "query", arguments->query);
    attni_list_tensor(list, "key", arguments->key);
    attni_list_tensor(list, "value", arguments->value);
    attni_list_options(list, params);
}

/* No output may touch an input or another output, nor the workspace any tensor. */
static attn_status check_overlap(const sdpa_arguments *arguments, const attn_sdpa_params *params,
                                 const attni_layout *layout, const void *workspace) {
    attni_tensor_list list;
    list_tensors(arguments, params, &list);
    ATTNI_TRY(attni_check_outputs(list.tensors, list.num_outputs, list.tensors + list.num_outputs,
                                  list.count - list.num_outputs));
    return attni_check_workspace_apart(workspace, attni_workspace_reach(layout), list.tensors,
                                       list.count);
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
        .kv_names = &attni_names_of_kv,
    };
    ATTNI_TRY(attni_sdpa_check(&request, problem));
    return attni_sdpa_make_plan(context, problem, plan);
}

attn_status attn_sdpa(attn_context *context, const attn_tensor *query, const attn_tensor *key,
                      const attn_tensor *value, const attn_sdpa_params *params,
                      const attn_tensor *output, void *workspace, size_t workspace_bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    const sdpa_arguments arguments = {query, key, value, params, output};
    attn_sdpa_params options;
    attni_sdpa_problem problem;
    attni_sdpa_plan plan;
    ATTNI_TRY(prepare(context, &arguments, ATTNI_DATA_REQUIRED, &options, &problem, &plan));
    if (problem.query_starts.is_present) {
        ATTNI_TRY(attni_sdpa_plan_runs(context, &problem, workspace != NULL, &plan));
    }
    ATTNI_TRY(attni_workspace_check(&plan.layout, workspace, workspace_bytes));
    ATTNI_TRY(check_overlap(&arguments, &options, &plan.layout, workspace));
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
    ATTNI_NO_FLOAT_TRAPS;
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
    ATTNI_NO_FLOAT_TRAPS;
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
