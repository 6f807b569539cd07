/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_run.h: runs a case by its op under one setting; every deviation is a failure in the
 * report.
 */
#ifndef GOLDEN_RUN_H
#define GOLDEN_RUN_H

#include "golden_case.h"
#include "golden_report.h"

/* op sdpa: inputs q, k, v, attn_mask (a bool mask says what takes part); output out; with grads also
 * grad_out and the outputs grad.q, grad.k, grad.v and, of a float mask, grad.attn_mask. */
void golden_run_sdpa(golden_case *golden, const golden_setting *setting, golden_report *report);

/* op mha: torch.nn.MultiheadAttention; bool masks say what is masked out; outputs attn_output and,
 * with need_weights, attn_weights. Run with copied parameters and the library's workspace, and with
 * bound parameters and the caller's. */
void golden_run_mha(golden_case *golden, const golden_setting *setting, golden_report *report);

/* op fullwidth: every head has its own w_q (De, Dq), w_k, w_v and works at the full width De; run
 * as a layer with head_dim = De. */
void golden_run_fullwidth(golden_case *golden, const golden_setting *setting,
                          golden_report *report);

#endif
