/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa.c: the public attention calls. Each checks and plans; one runs, one tells the workspace, one
 * explains.
 */
#include <attention/sdpa.h>

#include <string.h>

#include "base/float_traps.h"
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

enum { NUM_OUTPUTS = 4, NUM_TENSORS = 13 };

/* The tensors of a call: the outputs, then the inputs. */
static void list_tensors(const sdpa_arguments *arguments, const attn_sdpa_params *params,
                         attni_argument tensors[NUM_TENSORS]) {
    const attni_argument all[NUM_TENSORS] = {{"output", arguments->output},
                                             {"lse", params->lse},
                                             {"weights", params->weights},
                                             {"scores", params->scores},
                                             {"query", arguments->query},
                                             {"key", arguments->key},
                                             {"value", arguments->value},
                                             {"mask", params->mask},
                                             {"bias", params->bias},
                                             {"query_offset", params->query_offset},
                                             {"key_lengths", params->key_lengths},
                                             {"alibi_slopes", params->alibi_slopes},
                                             {"sinks", params->sinks}};
    memcpy(tensors, all, sizeof all);
}

/* No output may touch an input or another output, nor the workspace any tensor. */
static attn_status check_overlap(const sdpa_arguments *arguments, const attn_sdpa_params *params,
                                 const attni_layout *layout, const void *workspace) {
    attni_argument tensors[NUM_TENSORS];
    list_tensors(arguments, params, tensors);
    ATTNI_TRY(attni_check_outputs(tensors, NUM_OUTPUTS, tensors + NUM_OUTPUTS,
                                  NUM_TENSORS - NUM_OUTPUTS));
    return attni_check_workspace_apart(workspace, attni_workspace_reach(layout), tensors,
                                       NUM_TENSORS);
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
