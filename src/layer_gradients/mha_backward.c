/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_backward.c: the public calls for the gradients of a layer: check, plan, run. No arithmetic.
 */
#include <attention/multihead_backward.h>

#include "base/error.h"

static attn_status not_yet(void) {
    attni_error_clear();
    return attni_fail(ATTN_ERROR_UNSUPPORTED, "gradients: those of a layer are not computed yet");
}

attn_status attn_mha_saved_bytes(attn_context *context, const attn_mha *layer,
                                 const attn_tensor *query, const attn_tensor *key,
                                 const attn_tensor *value, const attn_mha_params *params,
                                 size_t *bytes) {
    (void)context, (void)layer, (void)query, (void)key, (void)value, (void)params, (void)bytes;
    return not_yet();
}

attn_status attn_mha_backward(attn_context *context, const attn_mha *layer,
                              const attn_tensor *query, const attn_tensor *key,
                              const attn_tensor *value, const attn_mha_params *params,
                              const attn_mha_gradients *gradients, void *workspace,
                              size_t workspace_bytes) {
    (void)context, (void)layer, (void)query, (void)key, (void)value, (void)params;
    (void)gradients, (void)workspace, (void)workspace_bytes;
    return not_yet();
}

attn_status attn_mha_backward_workspace_bytes(attn_context *context, const attn_mha *layer,
                                              const attn_tensor *query, const attn_tensor *key,
                                              const attn_tensor *value,
                                              const attn_mha_params *params,
                                              const attn_mha_gradients *gradients, size_t *bytes) {
    (void)context, (void)layer, (void)query, (void)key, (void)value, (void)params;
    (void)gradients, (void)bytes;
    return not_yet();
}
