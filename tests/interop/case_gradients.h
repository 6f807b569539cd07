/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_gradients.h: the gradients that a case expects, from what its call wrote.
 */
#ifndef INTEROP_CASE_GRADIENTS_H
#define INTEROP_CASE_GRADIENTS_H

#include <attention/attention.h>

#include "case_results.h"

/* Whether the case goes back. */
int case_has_gradients(const interop_case *made);

/* params->lse and output: as the call of these params wrote them. */
attn_status case_sdpa_backward(const interop_case *made, const attn_sdpa_params *params,
                               const attn_tensor *output, case_results *room);

/* params->saved: as the layer's call of these params wrote it. */
attn_status case_mha_backward(const interop_case *made, const attn_mha *layer,
                              const attn_mha_params *params, case_results *room);

#endif
