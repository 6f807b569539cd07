/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_plan.c: what lies where. Pure but for reading key lengths in the attention's check.
 *
 * In the order of the run: the output projection, the attention, the projections of inputs. Each has
 * scratch memory of its own, which they use one after the other.
 */
#include "layer_gradients/layer_plan.h"

#include "base/checked_size.h"
#include "layer_gradients/layer_attention.h"
#include "layer_gradients/layer_products.h"

/* A gradient lies as what it is of does, whose memory was laid out before. */
static size_t add_like(const attn_tensor *heads, bool is_wanted, attni_layout *layout) {
    return attni_layout_add(layout, is_wanted ? heads->shape[0] * heads->shape[2] : 0,
                            (size_t)(heads->shape[1] * heads->shape[3]) *
                                attn_dtype_size_bytes(heads->dtype));
}

static void plan_heads(const attni_layer_problem *problem, attni_layer_plan *plan) {
    const attni_mha_plan *call = &plan->call;
    const attn_tensor *const heads[] = {&call->query, &call->key, &call->value, &call->context};
    const attn_tensor *const extra[] = {&call->extra_key, &call->extra_value};
    attni_layout *layout = &plan->layout;
    for (int32_t i = 0; i < ATTNI_NUM_PROJECTIONS; ++i) {
        const bool is_wanted =
            i < ATTNI_NUM_SUMMED ? problem->wants_heads[i] : problem->wants_attention;
        plan->heads[i] = *heads[i];
        plan->heads_offset[i] = add_like(heads[i], is_wanted, layout);
    }
    for (int32_t i = 0; i < 2; ++i) {
        const int64_t row = extra[i]->shape[1] * extra[i]->shape[3];
        plan->extra[i] = *extra[i];
        plan->extra_offset[i] =
            attni_layout_add(layout, problem->wants_extra[i] ? extra[i]->shape[2] : 0,
                             (size_t)row * attn_dtype_size_bytes(extra[i]->dtype));
    }
}

static void plan_norms(const attni_layer_problem *problem, attni_layer_plan *plan) {
    const attni_norm_problem *const norms[] = {&plan->call.query_norm, &plan->call.key_norm};
    const bool has_norm = problem->call.layer->qk_norm != ATTN_QK_NORM_NONE;
    for (int32_t i = 0; i < 2; ++i) {
        const bool is_wanted = has_norm && problem->wants_heads[i];
        plan->norm_sums_offset[i] =
            attni_layout_add(&plan->layout, is_wanted ? attni_norm_blocks(norms[i]) : 0,
                             (size_t)norms[i]->num_cols * sizeof(double));
    }
}

/* What the gradients of a projection are of and where they go; those of the pass's own heads have no
 * address yet. */
static void set_tensors(const attni_layer_problem *problem, attni_layer_plan *plan) {
    static const int32_t weights[] = {ATTNI_Q_WEIGHT, ATTNI_K_WEIGHT, ATTNI_V_WEIGHT,
                                      ATTNI_O_WEIGHT};
    static const int32_t biases[] = {ATTNI_Q_BIAS, ATTNI_K_BIAS, ATTNI_V_BIAS, ATTNI_O_BIAS};
    const attni_mha_problem *call = &problem->call;
    const attn_tensor *const inputs[] = {&call->query, &call->key, &call->value};
    for (int32_t i = 0; i < ATTNI_NUM_PROJECTIONS; ++i) {
        attni_layer_product *product = &plan->products[i];
        product->weight = problem->slots[weights[i]];
        product->bias = problem->slots[biases[i]];
        if (i < ATTNI_NUM_SUMMED) {
            product->rows = *inputs[i];
            product->gradient = attni_mha_merged(&plan->heads[i]);
            product->rows_gradient = problem->inputs[i];
            product->adds_to_rows = problem->accumulates;
        } else {
            product->rows = attni_mha_merged(&plan->call.context);
            product->gradient = call->output;
            product->rows_gradient =
                problem->wants_attention ? attni_mha_merged(&plan->heads[i]) : (attn_tensor){0};
        }
    }
}

static void plan_threads(const attni_layer_problem *problem, attni_layer_plan *plan) {
    const attn_mha *layer = problem->call.layer;
    const bool has_positions = problem->call.has_rope || layer->qk_norm != ATTN_QK_NORM_NONE;
    plan->wants_threads = has_positions || plan->attention_plan.num_slots > 1 ||
                          plan->extra_plan.num_slots > 1 ||
                          attni_layer_products_want_threads(plan->products, ATTNI_NUM_SUMMED) ||
                          attni_layer_products_want_threads(&plan->products[ATTNI_OF_CONTEXT], 1);
}

attn_status attni_layer_make_plan(const attn_context *context, const attni_layer_problem *problem,
                                  attni_layer_plan *plan) {
    *plan = (attni_layer_plan){0};
    plan->call.is_batch_major = problem->call.is_batch_major;
    ATTNI_TRY(attni_gemm_check(attni_context_projection_gemm(context)));
    ATTNI_TRY(attni_mha_plan_heads(&problem->call, &plan->call));
    ATTNI_TRY(attni_mha_plan_positions(&problem->call, &plan->call));
    plan->layout = plan->call.layout;
    plan_heads(problem, plan);
    plan_norms(problem, plan);
    set_tensors(problem, plan);
    attni_layout steps[3] = {{0}, {0}, {0}};
    attni_layer_product_plan(context, problem, ATTNI_OF_CONTEXT, &plan->products[ATTNI_OF_CONTEXT],
                             &steps[0]);
    ATTNI_TRY(attni_layer_attention_plan(context, problem, plan, &steps[1]));
    for (int32_t i = 0; i < ATTNI_NUM_SUMMED; ++i) {
        attni_layer_product_plan(context, problem, i, &plan->products[i], &steps[2]);
    }
    size_t most = 0;
    for (int32_t i = 0; i < 3; ++i) {
        most = steps[i].bytes > most ? steps[i].bytes : most;
        plan->layout.overflow |= steps[i].overflow;
    }
    plan->shared_offset = attni_layout_add(&plan->layout, (int64_t)most, 1);
    plan_threads(problem, plan);
    size_t bytes;
    return attni_layout_bytes(&plan->layout, &bytes);
}
