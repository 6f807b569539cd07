/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_layer_gradients.h: the gradients of a case of multi-head attention.
 */
#ifndef GOLDEN_LAYER_GRADIENTS_H
#define GOLDEN_LAYER_GRADIENTS_H

#include "golden_case.h"
#include "golden_report.h"

/* A forward call that has been made, with params.saved. */
typedef struct golden_layer_call {
    const attn_mha *layer;
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_mha_params *params;
} golden_layer_call;

/* Memory for what the call saves, of exactly the size asked for; sets params->saved. */
void golden_take_saved(golden_case *golden, const golden_setting *setting,
                       const golden_layer_call *call, attn_mha_params *params,
                       golden_report *report);

/* Runs the backward call and compares every gradient that the case has. */
void golden_run_layer_gradients(golden_case *golden, const golden_setting *setting,
                                const golden_layer_call *call, golden_report *report);

#endif
