/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_forward.c: the forward pass, step by step as the formula says it; each step is one call to a
 * lower layer. Shapes: query (N, L, qdim), key (N, S, kdim), value (N, S, vdim); heads (N, H, L,
 * D); T = S + extra columns; output (N, L, embed_dim).
 */
#include <string.h>

#include "multihead/mha_layer.h"
#include "sdpa/sdpa_run.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

typedef struct forward_pass {
    attn_context *context;
    const attni_mha_problem *problem;
    attni_mha_plan *plan;
    char *scratch; /* of the step that runs */
} forward_pass;

/* query, key and value times their weights, with the heads of the results side by side in memory:
 * splitting them is a matter of strides. */
static attn_status project(const forward_pass *pass) {
    return attni_projection_run(pass->context, pass->problem->layer, pass->plan, 0,
                                ATTNI_NUM_INPUT_PROJECTIONS, pass->scratch);
}

/* The rows of one position in all batches, (N, Hk * features): where the extra columns stand. */
static attni_strided_matrix rows_at(const attn_tensor *heads, int64_t position) {
    const attn_tensor merged = attni_mha_merged(heads);
    const int64_t element = (int64_t)attn_dtype_size_bytes(heads->dtype);
    return (attni_strided_matrix){(char *)merged.data + position * merged.strides[1] * element,
                                  merged.strides[0], 1};
}

/* bias_k or bias_v, the same for every batch. */
static void append_parameter(const forward_pass *pass, int32_t slot, const attn_tensor *heads,
                             int64_t position) {
    const attn_tensor *parameter = &pass->problem->layer->slots[slot].view;
    const attni_strided_matrix rows = rows_at(heads, position);
    const attn_tensor to = {.data = rows.data,
                            .dtype = heads->dtype,
                            .rank = 2,
                            .shape = {heads->shape[0], parameter->shape[0]},
                            .strides = {rows.row_stride, rows.col_stride}};
    attn_tensor from = to;
    from.data = parameter->data;
    from.dtype = parameter->dtype;
    from.strides[0] = 0;
    from.strides[1] = parameter->strides[0];
    attni_copy_tensor(&to, &from);
}

static void clear_row(const attn_tensor *heads, int64_t batch, int64_t position) {
    const attn_tensor merged = attni_mha_merged(heads);
    const int64_t element = (int64_t)attn_dtype_size_bytes(heads->dtype);
    char *row =
        (char *)merged.data + (batch * merged.strides[0] + position * merged.strides[1]) * element;
    memset(row, 0, (size_t)(merged.shape[2] * element));
}

/* The columns behind the source keys: the learned key and value, then zeroes. */
static void append_extra_columns(const forward_pass *pass) {
    const attn_mha *layer = pass->problem->layer;
    const attni_mha_plan *plan = pass->plan;
    int64_t position = pass->problem->src_len;
    if (layer->has_bias_kv && pass->problem->batch > 0) {
        append_parameter(pass, ATTNI_BIAS_K, &plan->key, position);
        append_parameter(pass, ATTNI_BIAS_V, &plan->value, position);
        ++position;
    }
    for (int64_t batch = 0; layer->has_zero_attn && batch < pass->problem->batch; ++batch) {
        clear_row(&plan->key, batch, position);
        clear_row(&plan->value, batch, position);
    }
}

/* Padded positions may hold anything, NaN included, and a weight of 0 would not keep that out of a
 * sum; zeroes do. */
static void clear_padding(const forward_pass *pass) {
    const attni_mha_problem *problem = pass->problem;
    const attni_mask *mask = &problem->key_padding_mask;
    if (mask->kind == ATTN_MASK_NONE) {
        return;
    }
    for (int64_t batch = 0; batch < problem->batch; ++batch) {
        for (int64_t position = 0; position < problem->src_len; ++position) {
            if (attni_mask_excludes(mask, batch * mask->strides[0] + position * mask->strides[3])) {
                clear_row(&pass->plan->key, batch, position);
                clear_row(&pass->plan->value, batch, position);
            }
        }
    }
}

/* context = attention(query, key, value) for every head. */
static attn_status attend(const forward_pass *pass) {
    attni_mha_plan *plan = pass->plan;
    plan->attention.query.data = plan->query.data;
    plan->attention.key.data = plan->key.data;
    plan->attention.value.data = plan->value.data;
    plan->attention.output.data = plan->context.data;
    return attni_sdpa_run(pass->context, &plan->attention, &plan->attention_plan, pass->scratch,
                          pass->problem->attention.report);
}

/* output = concat(context) Wo^T + bo; concatenating heads is a matter of strides again. */
static attn_status combine(const forward_pass *pass) {
    return attni_projection_run(pass->context, pass->problem->layer, pass->plan,
                                ATTNI_NUM_INPUT_PROJECTIONS, 1, pass->scratch);
}

static void place_buffers(attni_mha_plan *plan, char *scratch) {
    plan->query.data = scratch + plan->query_offset;
    plan->key.data = scratch + plan->key_offset;
    plan->value.data = scratch + plan->value_offset;
    plan->context.data = scratch + plan->context_offset;
    plan->projections[0].c.data = plan->query.data;
    plan->projections[1].c.data = plan->key.data;
    plan->projections[2].c.data = plan->value.data;
    plan->projections[3].a.data = plan->context.data;
}

attn_status attni_mha_run(attn_context *context, const attni_mha_problem *problem,
                          attni_mha_plan *plan, char *scratch) {
    if (problem->batch == 0 || problem->tgt_len == 0) {
        /* There is no output, lse or weight to write, but what ran is still reported. */
        return attni_sdpa_run(context, &plan->attention, &plan->attention_plan, NULL,
                              problem->attention.report);
    }
    if (plan->wants_threads) {
        /* The last step may not be the first to find out that they cannot be started. */
        ATTNI_TRY(attni_start_threads(context));
    }
    const forward_pass pass = {context, problem, plan, scratch + plan->shared_offset};
    place_buffers(plan, scratch);
    ATTNI_TRY(project(&pass));
    append_extra_columns(&pass);
    clear_padding(&pass);
    ATTNI_TRY(attend(&pass));
    return combine(&pass);
}
