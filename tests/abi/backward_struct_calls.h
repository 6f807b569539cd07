/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_struct_calls.h: attn_sdpa_backward and its queries with each of their structs.
 */
#ifndef TESTS_ABI_BACKWARD_STRUCT_CALLS_H
#define TESTS_ABI_BACKWARD_STRUCT_CALLS_H

#include <attention/attention.h>

/* What the structs may be. */
extern const attn_sdpa_gradients valid_gradients;
extern const attn_sdpa_params valid_backward_params;
extern const attn_kv valid_backward_kv;

/* Calls with one struct of the test's; a success has the right numbers. */
attn_status call_backward_gradients(void *gradients);
attn_status call_backward_workspace_bytes_gradients(void *gradients);
attn_status call_backward_explain_gradients(void *gradients);
attn_status call_backward_params(void *params);
attn_status call_backward_workspace_bytes_params(void *params);
attn_status call_backward_explain_params(void *params);
attn_status call_backward_kv(void *kv);
attn_status call_backward_report(void *report);

/* Makes the valid call; before any of the others. */
void backward_struct_calls_create(void);

#endif
