/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_run.c: the formulas of multihead_backward.h from top to bottom; each step is one call to a
 * file below.
 */
#include "layer_gradients/layer_run.h"

#include "layer_gradients/layer_attention.h"
#include "layer_gradients/layer_products.h"
#include "layer_gradients/layer_rows.h"
#include "tensor/element.h"

/* The pass's own tensors get their addresses, and with them what products read and write. */
static void place(const attni_layer_problem *problem, attni_layer_plan *plan, char *scratch) {
    attni_mha_place(&problem->call, &plan->call, scratch);
    for (int32_t i = 0; i < ATTNI_NUM_PROJECTIONS; ++i) {
        attni_layer_product *product = &plan->products[i];
        char *heads = attni_advance(scratch, (int64_t)plan->heads_offset[i]);
        plan->heads[i].data = heads;
        if (i < ATTNI_NUM_SUMMED) {
            product->gradient.data = heads;
            product->to_rows.a.data = heads;
            product->to_weight.a.data = heads;
        } else {
            product->rows.data = plan->call.context.data;
            product->rows_gradient.data = heads;
            product->to_rows.c.data = heads;
        }
    }
    for (int32_t i = 0; i < 2; ++i) {
        plan->extra[i].data = attni_advance(scratch, (int64_t)plan->extra_offset[i]);
    }
}

/* bias_k and bias_v are the first of the extra columns, all batches' one. */
static attn_status put_extra(attn_context *context, const attni_layer_problem *problem,
                             const attni_layer_plan *plan) {
    static const int32_t slots[] = {ATTNI_BIAS_K, ATTNI_BIAS_V};
    for (int32_t i = 0; i < 2; ++i) {
        if (problem->wants_extra[i]) {
            const attni_layer_rows rows =
                attni_layer_rows_of(context, &problem->slots[slots[i]], true);
            ATTNI_TRY(
                attni_layer_put_rows(context, &rows, plan->extra[i].data, problem->accumulates));
        }
    }
    return ATTN_OK;
}

attn_status attni_layer_run(attn_context *context, const attni_layer_problem *problem,
                            attni_layer_plan *plan, char *scratch) {
    char *shared = attni_advance(scratch, (int64_t)plan->shared_offset);
    if (plan->wants_threads) {
        /* No step may be the first to find out that they cannot be started. */
        ATTNI_TRY(attni_start_threads(context));
    }
    place(problem, plan, scratch);
    attni_mha_fill_extra_columns(&problem->call, &plan->call);
    ATTNI_TRY(attni_layer_products_run(context, problem, plan, ATTNI_OF_CONTEXT, 1, shared));
    if (!problem->wants_attention) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_layer_attention_run(context, problem, plan, shared));
    ATTNI_TRY(attni_layer_positions_run(context, problem, plan, scratch));
    ATTNI_TRY(attni_layer_products_run(context, problem, plan, 0, ATTNI_NUM_SUMMED, shared));
    return put_extra(context, problem, plan);
}
