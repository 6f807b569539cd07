/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_backward_struct_calls.h: the gradients of a layer with one struct of a call replaced.
 */
#ifndef MHA_BACKWARD_STRUCT_CALLS_H
#define MHA_BACKWARD_STRUCT_CALLS_H

#include <attention/attention.h>

extern const attn_mha_gradients valid_layer_gradients;
extern const attn_sdpa_gradients valid_layer_attention_gradients;

void mha_backward_struct_calls_create(void);
void mha_backward_struct_calls_destroy(void);

attn_status call_mha_backward_gradients(void *gradients);
attn_status call_mha_backward_workspace_bytes_gradients(void *gradients);
attn_status call_mha_backward_attention(void *attention);

#endif
