/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_plan.c: the scratch memory of a forward call, and the plans of its steps. Pure but for
 * reading key lengths in the attention's check.
 */
#include "base/checked_size.h"
#include "multihead/mha_layer.h"
#include "problem/sdpa_check.h"
#include "problem/sdpa_options.h"

/* A dense (N, H, rows, features) tensor whose heads lie side by side, in the memory order of the
 * caller's tensors: (N, rows, H * features) or (rows, N, H * features), so that a projection can
 * write it, or read it, as one matrix.
 *
 * N * rows fits int64_t: the caller's tensor has no more rows than 2^61. So do the bytes of a row:
 * they are those of a column of some weight. The stride between batches or rows may not fit; then either the layout does not, or nothing is there
 * to be reached by it. */
static attn_tensor plan_heads(const attni_mha_problem *problem, int64_t heads, int64_t rows,
                              int64_t features, attni_layout *layout, size_t *offset) {
    const int64_t width = heads * features;
    const int32_t dtype = problem->layer->score_dtype;
    int64_t outer_stride;
    (void)attni_multiply(problem->is_batch_major ? rows : problem->batch, width, &outer_stride);
    *offset = attni_layout_add(layout, problem->batch * rows,
                               (size_t)width * attn_dtype_size_bytes(dtype));
    return (attn_tensor){
        .dtype = dtype,
        .rank = 4,
        .shape = {problem->batch, heads, rows, features},
        .strides = {problem->is_batch_major ? outer_stride : width, features,
                    problem->is_batch_major ? width : outer_stride, 1},
    };
}

/* Rows of the extra columns, which all batches share. */
static attn_tensor plan_extra(const attni_mha_problem *problem, int64_t features,
                              attni_layout *layout, size_t *offset) {
    const int64_t heads = problem->layer->num_kv_heads;
    const int32_t dtype = problem->layer->score_dtype;
    *offset = attni_layout_add(layout, problem->extra_cols,
                               (size_t)(heads * features) * attn_dtype_size_bytes(dtype));
    return (attn_tensor){
        .dtype = dtype,
        .rank = 4,
        .shape = {problem->batch, heads, problem->extra_cols, features},
        .strides = {0, features, heads * features, 1},
    };
}

/* (N, rows, H * features) as the projections see it. */
attn_tensor attni_mha_merged(const attn_tensor *heads) {
    return (attn_tensor){
        .data = heads->data,
        .dtype = heads->dtype,
        .rank = 3,
        .shape = {heads->shape[0], heads->shape[2], heads->shape[1] * heads->shape[3]},
        .strides = {heads->strides[0], heads->strides[2], 1},
    };
}

static attn_status plan_projections(const attn_context *context, const attni_mha_problem *problem,
                                    attni_mha_plan *plan) {
    const int32_t backend = attni_context_projection_gemm(context);
    ATTNI_TRY(attni_gemm_check(backend));
    const attn_tensor merged[] = {attni_mha_merged(&plan->raw_query),
                                  attni_mha_merged(&plan->raw_key), attni_mha_merged(&plan->value),
                                  attni_mha_merged(&plan->context)};
    const attn_tensor *const from[] = {&problem->query, &problem->key, &problem->value, &merged[3]};
    const attn_tensor *const to[] = {&merged[0], &merged[1], &merged[2], &problem->output};
    for (int32_t i = 0; i < ATTNI_NUM_PROJECTIONS; ++i) {
        attni_projection_plan(problem, i, backend, attni_context_kernels(context), from[i], to[i],
                              plan);
    }
    const int32_t inputs = ATTNI_NUM_INPUT_PROJECTIONS;
    plan->wants_threads =
        backend == ATTN_GEMM_NATIVE &&
        (attni_gemm_wants_threads(plan->projections, inputs) ||
         attni_gemm_wants_threads(plan->projections + inputs, ATTNI_NUM_PROJECTIONS - inputs));
    return ATTN_OK;
}

/* The steps' own scratch memory is used one step at a time, so they share the largest. The native
 * projections of query, key and value are one step. */
static size_t shared_bytes(const attni_mha_problem *problem, attni_mha_plan *plan, bool *overflow) {
    const bool is_native = plan->projections[0].backend == ATTN_GEMM_NATIVE;
    size_t most = plan->attention_plan.layout.bytes;
    attni_layout step = {0};
    for (int32_t i = 0; i < ATTNI_NUM_PROJECTIONS; ++i) {
        if (!is_native || i == ATTNI_NUM_INPUT_PROJECTIONS) {
            step = (attni_layout){0};
        }
        plan->projection_offsets[i] = step.bytes;
        attni_projection_add_scratch(problem->layer, i, plan, &step);
        most = step.bytes > most ? step.bytes : most;
        *overflow |= step.overflow;
    }
    return most;
}

attn_tensor attni_mha_batched(const attni_mha_problem *problem, const attn_tensor *heads) {
    attn_tensor view = *heads;
    if (problem->is_batched) {
        return view;
    }
    view.rank = 3;
    for (int32_t axis = 0; axis < 3; ++axis) {
        view.shape[axis] = heads->shape[axis + 1];
        view.strides[axis] = heads->strides[axis + 1];
    }
    return view;
}

void attni_mha_ask_attention(const attni_mha_problem *problem, const attni_mha_plan *plan,
                             attni_mha_attention *attention) {
    const attn_tensor *const batched[] = {&plan->query,   &plan->key,       &plan->value,
                                          &plan->context, &plan->extra_key, &plan->extra_value};
    for (int i = 0; i < 6; ++i) {
        attention->views[i] = attni_mha_batched(problem, batched[i]);
    }
    const bool has_extra = problem->extra_cols > 0;
    attention->request = (attni_sdpa_request){
        .query = &attention->views[0],
        .key = problem->has_cache ? NULL : &attention->views[1],
        .value = problem->has_cache ? NULL : &attention->views[2],
        .output = &attention->views[3],
        .params = &problem->attention,
        .option_prefix = "attention.",
        .tensor_data = ATTNI_DATA_IGNORED,
        .option_data = problem->data_rule,
        .kv_names = &attni_names_of_cache,
        .extra_key = has_extra ? &attention->views[4] : NULL,
        .extra_value = has_extra ? &attention->views[5] : NULL,
        .key_columns = problem->is_ragged ? &problem->src_len : NULL,
        .dtype = problem->layer->dtype,
    };
}

attni_mask attni_mha_padding_mask(const attni_mha_problem *problem) {
    attni_mask padding = problem->key_padding_mask;
    for (int32_t axis = 0; !problem->is_batched && axis < 3; ++axis) {
        padding.strides[axis] = padding.strides[axis + 1];
    }
    return padding;
}

/* lse goes where it is saved, and from there to the caller's. */
static attn_status save_lse(attni_mha_plan *plan) {
    attni_sdpa_problem *attention = &plan->attention;
    const attni_row_axes axes = {.heads = true, .cols = -1, .dtype = attention->score_dtype};
    if (plan->lse.rank == 0) {
        return ATTN_OK;
    }
    attention->lse = (attni_operand){0};
    return attni_check_rows("saved", &plan->lse, ATTNI_DATA_IGNORED, attention, axes,
                            &attention->lse);
}

static attn_status plan_attention(const attn_context *context, const attni_mha_problem *problem,
                                  attni_mha_plan *plan) {
    attni_mha_attention asked;
    attni_mha_ask_attention(problem, plan, &asked);
    ATTNI_TRY(attni_sdpa_check(&asked.request, &plan->attention));
    ATTNI_TRY(save_lse(plan));
    plan->attention.masks[ATTNI_KEY_PADDING_MASK] = attni_mha_padding_mask(problem);
    return attni_sdpa_make_plan(context, &plan->attention, &plan->attention_plan);
}

/* Keys and values, however many, need not be projected where nobody meets them. */
bool attni_mha_is_idle(const attni_mha_problem *problem) {
    const bool stores_rows = problem->appends && problem->new_len > 0;
    return problem->batch == 0 || (problem->tgt_len == 0 && !stores_rows);
}

/* lse of softmax, and what a norm is given, which a backward pass needs. */
static void plan_saved(const attni_mha_problem *problem, attni_mha_plan *plan) {
    const attn_mha *layer = problem->layer;
    if (problem->saves && layer->qk_norm != ATTN_QK_NORM_NONE) {
        plan->raw_query = plan_heads(problem, layer->num_heads, problem->tgt_len, layer->head_dim,
                                     &plan->saved, &plan->raw_query_offset);
        plan->raw_key = plan_heads(problem, layer->num_kv_heads, problem->new_len, layer->head_dim,
                                   &plan->saved, &plan->raw_key_offset);
    } else {
        plan->raw_query = plan->query;
        plan->raw_query_offset = plan->query_offset;
        plan->raw_key = plan->key;
        plan->raw_key_offset = plan->key_offset;
    }
    if (problem->saves && problem->attention.normalizer == ATTN_NORMALIZER_SOFTMAX) {
        const attn_tensor rows = attni_mha_batched(problem, &plan->query);
        plan->lse = (attn_tensor){.dtype = rows.dtype, .rank = rows.rank - 1};
        for (int32_t axis = 0; axis < plan->lse.rank; ++axis) {
            plan->lse.shape[axis] = rows.shape[axis];
        }
        attni_make_contiguous(&plan->lse);
        plan->lse_offset =
            attni_layout_add(&plan->saved, problem->batch * problem->tgt_len,
                             (size_t)layer->num_heads * attn_dtype_size_bytes(rows.dtype));
    }
}

attn_status attni_mha_plan_heads(const attni_mha_problem *problem, attni_mha_plan *plan) {
    const attn_mha *layer = problem->layer;
    attni_layout *layout = &plan->layout;
    attni_layout *kept = problem->saves ? &plan->saved : layout;
    plan->query = plan_heads(problem, layer->num_heads, problem->tgt_len, layer->head_dim, kept,
                             &plan->query_offset);
    plan->key = plan_heads(problem, layer->num_kv_heads, problem->new_len, layer->head_dim, kept,
                           &plan->key_offset);
    plan->value = plan_heads(problem, layer->num_kv_heads, problem->new_len, layer->value_head_dim,
                             kept, &plan->value_offset);
    plan->context = plan_heads(problem, layer->num_heads, problem->tgt_len, layer->value_head_dim,
                               kept, &plan->context_offset);
    plan->extra_key = plan_extra(problem, layer->head_dim, layout, &plan->extra_key_offset);
    plan->extra_value =
        plan_extra(problem, layer->value_head_dim, layout, &plan->extra_value_offset);
    plan_saved(problem, plan);
    if (attni_mha_is_idle(problem)) {
        plan->saved = (attni_layout){0};
    }
    size_t bytes;
    ATTNI_TRY(attni_layout_bytes(&plan->saved, &bytes));
    return attni_layout_bytes(layout, &bytes);
}

attn_status attni_mha_check_saved(const attni_mha_problem *problem, const attni_mha_plan *plan) {
    const attn_mha_params *params = &problem->params;
    if (!problem->saves) {
        return ATTN_OK;
    }
    if ((uintptr_t)params->saved % sizeof(double) != 0) {
        return attni_fail(ATTN_ERROR_VALUE, "saved: expected memory that is aligned to %zu bytes",
                          sizeof(double));
    }
    return params->saved_bytes >= plan->saved.bytes
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_WORKSPACE,
                            "saved_bytes: expected at least %zu for this call, got %llu",
                            plan->saved.bytes, (unsigned long long)params->saved_bytes);
}

attn_status attni_mha_make_plan(const attn_context *context, const attni_mha_problem *problem,
                                attni_mha_plan *plan) {
    *plan = (attni_mha_plan){.is_batch_major = problem->is_batch_major};
    attni_layout *layout = &plan->layout;
    ATTNI_TRY(attni_mha_plan_heads(problem, plan));
    ATTNI_TRY(plan_projections(context, problem, plan));
    ATTNI_TRY(attni_mha_plan_positions(problem, plan));
    ATTNI_TRY(attni_mha_plan_append(problem, plan));
    ATTNI_TRY(plan_attention(context, problem, plan));
    if (attni_mha_is_idle(problem)) {
        plan->layout = (attni_layout){0};
        return ATTN_OK;
    }
    bool overflow = false;
    const size_t shared = shared_bytes(problem, plan, &overflow);
    plan->shared_offset = attni_layout_add(layout, (int64_t)shared, 1);
    layout->overflow |= overflow;
    size_t bytes;
    return attni_layout_bytes(layout, &bytes);
}
