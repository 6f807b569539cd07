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

/* The tensors of a call that are there: the outputs, then the inputs. */
typedef struct tensor_list {
    attni_argument tensors[27];
    int32_t count;
    int32_t num_outputs;
} tensor_list;

static void add(tensor_list *list, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        list->tensors[list->count++] = (attni_argument){name, tensor};
    }
}

/* kv was checked. */
static void add_kv(tensor_list *list, const attn_kv *given) {
    attn_kv kv;
    attni_argument tensors[ATTNI_KV_TENSORS];
    (void)attni_kv_read(&attni_names_of_kv, given, &kv);
    attni_kv_list(&attni_names_of_kv, &kv, tensors);
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        add(list, tensors[i].name, tensors[i].tensor);
    }
}

static void list_tensors(const sdpa_arguments *arguments, const attn_sdpa_params *params,
                         tensor_list *list) {
    list->count = 0;
    add(list, "output", arguments->output);
    add(list, "lse", params->lse);
    add(list, "weights", params->weights);
    add(list, "scores", params->scores);
    list->num_outputs = list->count;
    add(list, "query", arguments->query);
    add(list, "key", arguments->key);
    add(list, "value", arguments->value);
    add(list, "mask", params->mask);
    add(list, "bias", params->bias);
    add(list, "mask_start", params->mask_start);
    add(list, "position_bias", params->position_bias);
    add(list, "block_mask", params->block_mask);
    add(list, "query_offset", params->query_offset);
    add(list, "key_lengths", params->key_lengths);
    add(list, "alibi_slopes", params->alibi_slopes);
    add(list, "sinks", params->sinks);
    add(list, "query_starts", params->query_starts);
    if (params->kv != NULL) {
        add_kv(list, params->kv);
    }
}

/* No output may touch an input or another output, nor the workspace any tensor. */
static attn_status check_overlap(const sdpa_arguments *arguments, const attn_sdpa_params *params,
                                 const attni_layout *layout, const void *workspace) {
    tensor_list list;
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
