/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_gradients.h: the gradients of a case of scaled dot-product attention.
 */
#ifndef GOLDEN_GRADIENTS_H
#define GOLDEN_GRADIENTS_H

#include "golden_case.h"
#include "golden_report.h"

typedef struct sdpa_call {
    attn_tensor query; /* (..., L, E) */
    attn_tensor key;   /* (..., S, E) */
    attn_tensor value; /* (..., S, Ev) */
    attn_tensor mask;
    attn_sdpa_params params;
} sdpa_call;

/* Runs the backward call behind the forward one, which has written output and params.lse, and whose
 * magnitudes are measured. */
void golden_run_gradients(golden_case *golden, const golden_setting *setting, const sdpa_call *call,
                          const attn_tensor *output, golden_report *report);

#endif
