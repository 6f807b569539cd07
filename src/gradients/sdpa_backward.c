/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_backward.c: the public backward calls. Each checks and plans; one runs, one tells the
 * workspace, one explains.
 */
#include <attention/backward.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "context/context.h"
#include "gradients/gradients_check.h"
#include "gradients/gradients_plan.h"
#include "gradients/gradients_run.h"
#include "problem/sdpa_options.h"
#include "problem/tensor_list.h"

/* A call's arguments, then what they are in canonical form. */
typedef struct backward_call {
    attn_context *context;
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
    attni_gradients_request request;
    attni_gradients_problem problem;
    attni_gradients_plan plan;
    attni_layout layout;
    size_t bytes; /* of it, with room to align it */
} backward_call;

static attni_gradients_request request_of(const attn_tensor *query, const attn_tensor *key,
                                          const attn_tensor *value, const attn_sdpa_params *params,
                                          const attn_tensor *output,
                                          const attn_sdpa_gradients *gradients,
                                          attni_data_rule data) {
    return (attni_gradients_request){
        .query = query,
        .key = key,
        .value = value,
        .output = output,
        .params = params,
        .gradients = gradients,
        .names = &attni_names_of_gradients,
        .option_prefix = "",
        .tensor_data = data,
        .option_data = data,
    };
}

/* Everything before the run. */
static attn_status prepare(attn_context *context, const attni_gradients_request *given,
                           backward_call *call) {
    ATTNI_TRY(attni_context_resolve(context, &call->context));
    ATTNI_TRY(attni_sdpa_read_params("params", given->params, &call->params));
    ATTNI_TRY(attni_gradients_read(given->names, given->gradients, &call->gradients));
    call->params.weights = NULL;
    call->params.scores = NULL;
    call->params.report = NULL;
    call->request = *given;
    call->request.params = &call->params;
    call->request.gradients = &call->gradients;
    ATTNI_TRY(attni_gradients_check(&call->request, &call->problem));
    call->layout = (attni_layout){0};
    ATTNI_TRY(attni_gradients_make_plan(call->context, &call->problem, &call->plan, &call->layout));
    return attni_layout_bytes(&call->layout, &call->bytes);
}

static void list_tensors(const backward_call *call, attni_tensor_list *list) {
    const attn_sdpa_gradients *gradients = &call->gradients;
    list->count = 0;
    attni_list_tensor(list, "gradients.query", gradients->query);
    attni_list_tensor(list, "gradients.key", gradients->key);
    attni_list_tensor(list, "gradients.value", gradients->value);
    attni_list_tensor(list, "gradients.mask", gradients->mask);
    attni_list_tensor(list, "gradients.bias", gradients->bias);
    attni_list_tensor(list, "gradients.position_bias", gradients->position_bias);
    attni_list_tensor(list, "gradients.alibi_slopes", gradients->alibi_slopes);
    attni_list_tensor(list, "gradients.sinks", gradients->sinks);
    list->num_outputs = list->count;
    attni_list_tensor(list, "gradients.output", gradients->output);
    attni_list_tensor(list, "gradients.lse", gradients->lse);
    attni_list_tensor(list, "gradients.weights", gradients->weights);
    attni_list_tensor(list, "output", call->request.output);
    attni_list_tensor(list, "lse", call->params.lse);
    attni_list_tensor(list, "query", call->request.query);
    attni_list_tensor(list, "key", call->request.key);
    attni_list_tensor(list, "value", call->request.value);
    attni_list_options(list, &call->params);
}

static attn_status check_overlap(const backward_call *call, const void *workspace) {
    attni_tensor_list list;
    list_tensors(call, &list);
    ATTNI_TRY(attni_check_outputs(list.tensors, list.num_outputs, list.tensors + list.num_outputs,
                                  list.count - list.num_outputs));
    return attni_check_workspace_apart(workspace, attni_workspace_reach(&call->layout),
                                       list.tensors, list.count);
}

attn_status attn_sdpa_backward(attn_context *context, const attn_tensor *query,
                               const attn_tensor *key, const attn_tensor *value,
                               const attn_sdpa_params *params, const attn_tensor *output,
                               const attn_sdpa_gradients *gradients, void *workspace,
                               size_t workspace_bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    const attni_gradients_request given =
        request_of(query, key, value, params, output, gradients, ATTNI_DATA_REQUIRED);
    backward_call call;
    ATTNI_TRY(prepare(context, &given, &call));
    ATTNI_TRY(attni_workspace_check(&call.layout, workspace, workspace_bytes));
    ATTNI_TRY(check_overlap(&call, workspace));
    attni_workspace scratch;
    ATTNI_TRY(attni_workspace_acquire(&call.layout, attni_context_allocator(call.context),
                                      workspace, &scratch));
    const attn_status status =
        attni_gradients_run(call.context, &call.problem, &call.plan, scratch.base);
    attni_workspace_release(&scratch, attni_context_allocator(call.context));
    return status;
}

attn_status attn_sdpa_backward_workspace_bytes(attn_context *context, const attn_tensor *query,
                                               const attn_tensor *key, const attn_tensor *value,
                                               const attn_sdpa_params *params,
                                               const attn_tensor *output,
                                               const attn_sdpa_gradients *gradients,
                                               size_t *bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    if (bytes == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    const attni_gradients_request given =
        request_of(query, key, value, params, output, gradients, ATTNI_DATA_IGNORED);
    backward_call call;
    ATTNI_TRY(prepare(context, &given, &call));
    *bytes = call.bytes;
    return ATTN_OK;
}

static const char *reason_of(const backward_call *call) {
    if (call->problem.is_zero) {
        return "nothing is wanted, or nothing adds to it";
    }
    return call->plan.whole_heads
               ? "there are enough heads for the threads, or too little work to share"
               : "threads share the keys of a head, since there are few heads";
}

attn_status attn_sdpa_backward_explain(attn_context *context, const attn_tensor *query,
                                       const attn_tensor *key, const attn_tensor *value,
                                       const attn_sdpa_params *params, const attn_tensor *output,
                                       const attn_sdpa_gradients *gradients,
                                       attn_sdpa_backward_report *report) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_struct_check_output("report", report,
                                        ATTNI_BYTES_THROUGH(attn_sdpa_backward_report, reason)));
    const attni_gradients_request given =
        request_of(query, key, value, params, output, gradients, ATTNI_DATA_IGNORED);
    backward_call call;
    ATTNI_TRY(prepare(context, &given, &call));
    const bool *staged = call.plan.staged;
    const attni_sdpa_problem *wanted = &call.problem.gradients;
    const bool has_inputs =
        wanted->query.is_present || wanted->key.is_present || wanted->value.is_present;
    const attn_sdpa_backward_report known = {
        .whole_heads = call.problem.is_zero || call.plan.whole_heads,
        .staged = staged[ATTNI_OF_QUERY] + staged[ATTNI_OF_KEY] + staged[ATTNI_OF_VALUE],
        .num_items = has_inputs ? call.plan.num_items : 0,
        .row_block = call.plan.row_block,
        .key_block = call.plan.key_block,
        .workspace_bytes = call.bytes,
        .kernels = attni_context_kernels(call.context)->name,
        .reason = reason_of(&call),
    };
    attni_struct_write(report, &known, sizeof known);
    return ATTN_OK;
}
