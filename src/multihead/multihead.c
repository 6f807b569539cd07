/* SPDX-License-Identifier: BSD-3-Clause
 *
 * multihead.c: the public forward call and its workspace query: check, plan, run. No arithmetic.
 */
#include <attention/multihead.h>

#include "multihead/mha_layer.h"

attn_status attn_mha_forward(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                             const attn_tensor *key, const attn_tensor *value,
                             const attn_mha_params *params, const attn_tensor *output,
                             void *workspace, size_t workspace_bytes) {
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    attni_mha_problem problem;
    attni_mha_plan plan;
    ATTNI_TRY(
        attni_mha_check(layer, query, key, value, params, output, ATTNI_DATA_REQUIRED, &problem));
    ATTNI_TRY(attni_mha_make_plan(context, &problem, &plan));
    ATTNI_TRY(attni_mha_check_overlap(&problem));
    ATTNI_TRY(attni_workspace_check(&plan.layout, workspace, workspace_bytes));
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
    attni_error_clear();
    if (bytes == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    ATTNI_TRY(attni_context_resolve(context, &context));
    attni_mha_problem problem;
    attni_mha_plan plan;
    ATTNI_TRY(
        attni_mha_check(layer, query, key, value, params, output, ATTNI_DATA_IGNORED, &problem));
    ATTNI_TRY(attni_mha_make_plan(context, &problem, &plan));
    return attni_layout_bytes(&plan.layout, bytes);
}
