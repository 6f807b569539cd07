/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_backward.c: the public calls for the gradients of a layer: check, plan, run. No arithmetic.
 */
#include <attention/multihead_backward.h>

#include "base/float_traps.h"
#include "context/context.h"
#include "layer_gradients/layer_check.h"
#include "layer_gradients/layer_plan.h"
#include "layer_gradients/layer_run.h"

/* Everything before the run but what concerns memory, and before that which context NULL is. */
static attn_status prepare(attn_context **context, const attni_mha_request *request,
                           const attn_mha_gradients *gradients, attni_layer_problem *problem,
                           attni_layer_plan *plan) {
    ATTNI_TRY(attni_context_resolve(*context, context));
    ATTNI_TRY(attni_layer_check(request, gradients, problem));
    return attni_layer_make_plan(*context, problem, plan);
}

static attni_mha_request request_of(const attn_mha *layer, const attn_tensor *query,
                                    const attn_tensor *key, const attn_tensor *value,
                                    const attn_mha_params *params, attni_data_rule data_rule) {
    return (attni_mha_request){.layer = layer,
                               .query = query,
                               .key = key,
                               .value = value,
                               .params = params,
                               .data_rule = data_rule};
}

attn_status attn_mha_backward(attn_context *context, const attn_mha *layer,
                              const attn_tensor *query, const attn_tensor *key,
                              const attn_tensor *value, const attn_mha_params *params,
                              const attn_mha_gradients *gradients, void *workspace,
                              size_t workspace_bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    const attni_mha_request request =
        request_of(layer, query, key, value, params, ATTNI_DATA_REQUIRED);
    attni_layer_problem problem;
    attni_layer_plan plan;
    ATTNI_TRY(prepare(&context, &request, gradients, &problem, &plan));
    ATTNI_TRY(attni_workspace_check(&plan.layout, workspace, workspace_bytes));
    ATTNI_TRY(attni_layer_check_memory(&problem, &plan, workspace));
    attni_workspace scratch;
    ATTNI_TRY(attni_workspace_acquire(&plan.layout, attni_context_allocator(context), workspace,
                                      &scratch));
    const attn_status status = attni_layer_run(context, &problem, &plan, scratch.base);
    attni_workspace_release(&scratch, attni_context_allocator(context));
    return status;
}

static attn_status check_bytes(const size_t *bytes) {
    return bytes != NULL
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
}

attn_status attn_mha_backward_workspace_bytes(attn_context *context, const attn_mha *layer,
                                              const attn_tensor *query, const attn_tensor *key,
                                              const attn_tensor *value,
                                              const attn_mha_params *params,
                                              const attn_mha_gradients *gradients, size_t *bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(check_bytes(bytes));
    const attni_mha_request request =
        request_of(layer, query, key, value, params, ATTNI_DATA_IGNORED);
    attni_layer_problem problem;
    attni_layer_plan plan;
    ATTNI_TRY(prepare(&context, &request, gradients, &problem, &plan));
    return attni_layout_bytes(&plan.layout, bytes);
}
