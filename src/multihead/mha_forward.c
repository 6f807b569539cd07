/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_forward.c: the forward pass, step by step as the formula says it; each step is one call to a
 * lower layer. Shapes: query (N, L, qdim), key (N, n, kdim), value (N, n, vdim), n being S without a
 * cache; heads (N, H, L, D); T = S + extra columns; output (N, L, embed_dim).
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
    const attni_mha_problem *problem = pass->problem;
    const bool has_keys = problem->appends || !problem->has_cache;
    return attni_projection_run(pass->context, problem->layer, pass->plan, 0,
                                has_keys ? ATTNI_NUM_INPUT_PROJECTIONS : 1, pass->scratch);
}

void attni_mha_clear_row(const attn_tensor *heads, int64_t batch, int64_t row) {
    const attn_tensor merged = attni_mha_merged(heads);
    const int64_t element = (int64_t)attn_dtype_size_bytes(heads->dtype);
    char *first =
        (char *)merged.data + (batch * merged.strides[0] + row * merged.strides[1]) * element;
    memset(first, 0, (size_t)(merged.shape[2] * element));
}

/* bias_k or bias_v as the first of the extra columns. */
static void copy_parameter(const attn_mha *layer, int32_t slot, const attn_tensor *extra) {
    const attn_tensor *parameter = &layer->slots[slot].view;
    const attn_tensor to = {.data = extra->data,
                            .dtype = extra->dtype,
                            .rank = 1,
                            .shape = {parameter->shape[0]},
                            .strides = {1}};
    attni_copy_tensor(&to, parameter);
}

/* The columns behind the source keys: the learned key and value, then zeroes; the same for every
 * batch. */
void attni_mha_fill_extra_columns(const attni_mha_problem *problem, const attni_mha_plan *plan) {
    const attn_mha *layer = problem->layer;
    if (layer->has_bias_kv) {
        copy_parameter(layer, ATTNI_BIAS_K, &plan->extra_key);
        copy_parameter(layer, ATTNI_BIAS_V, &plan->extra_value);
    }
    if (layer->has_zero_attn) {
        attni_mha_clear_row(&plan->extra_key, 0, problem->extra_cols - 1);
        attni_mha_clear_row(&plan->extra_value, 0, problem->extra_cols - 1);
    }
}

bool attni_mha_is_padding(const attni_mha_problem *problem, const attni_mha_plan *plan,
                          int64_t batch, int64_t row) {
    const attni_mask *mask = &problem->key_padding_mask;
    const int64_t column = attni_mha_column_of(problem, plan, batch, row);
    return column >= 0 && column < problem->src_len &&
           attni_mask_excludes(mask, batch * mask->strides[0] + column * mask->strides[3]);
}

/* Padded positions may hold anything, NaN included, and a weight of 0 would not keep that out of a
 * sum; zeroes do. */
static void clear_padding(const forward_pass *pass) {
    const attni_mha_problem *problem = pass->problem;
    if (problem->key_padding_mask.kind == ATTN_MASK_NONE) {
        return;
    }
    for (int64_t batch = 0; batch < problem->batch; ++batch) {
        for (int64_t row = 0; row < problem->new_len; ++row) {
            if (attni_mha_is_padding(problem, pass->plan, batch, row)) {
                attni_mha_clear_row(&pass->plan->key, batch, row);
                attni_mha_clear_row(&pass->plan->value, batch, row);
            }
        }
    }
}

/* context = attention(query, key, value) for every head. */
static attn_status attend(const forward_pass *pass) {
    attni_mha_plan *plan = pass->plan;
    plan->attention.query.data = plan->query.data;
    plan->attention.extra_key.data = plan->extra_key.data;
    plan->attention.extra_value.data = plan->extra_value.data;
    plan->attention.output.data = plan->context.data;
    if (!pass->problem->has_cache) {
        plan->attention.key.data = plan->key.data;
        plan->attention.value.data = plan->value.data;
    }
    if (plan->lse.rank > 0) {
        plan->attention.lse.data = plan->lse.data;
    }
    ATTNI_TRY(attni_sdpa_run(pass->context, &plan->attention, &plan->attention_plan, pass->scratch,
                             pass->problem->attention.report));
    if (plan->lse.rank > 0 && pass->problem->attention.lse != NULL) {
        attni_copy_tensor(pass->problem->attention.lse, &plan->lse);
    }
    return ATTN_OK;
}

/* output = concat(context) Wo^T + bo; concatenating heads is a matter of strides again. */
static attn_status combine(const forward_pass *pass) {
    return attni_projection_run(pass->context, pass->problem->layer, pass->plan,
                                ATTNI_NUM_INPUT_PROJECTIONS, 1, pass->scratch);
}

void attni_mha_place(const attni_mha_problem *problem, attni_mha_plan *plan, char *scratch) {
    char *kept = problem->saves ? problem->params.saved : scratch;
    plan->query.data = kept + plan->query_offset;
    plan->key.data = kept + plan->key_offset;
    plan->value.data = kept + plan->value_offset;
    plan->context.data = kept + plan->context_offset;
    plan->raw_query.data = kept + plan->raw_query_offset;
    plan->raw_key.data = kept + plan->raw_key_offset;
    plan->lse.data = kept + plan->lse_offset;
    plan->extra_key.data = attni_advance(scratch, (int64_t)plan->extra_key_offset);
    plan->extra_value.data = attni_advance(scratch, (int64_t)plan->extra_value_offset);
    plan->projections[0].c.data = plan->raw_query.data;
    plan->projections[1].c.data = plan->raw_key.data;
    plan->projections[2].c.data = plan->value.data;
    plan->projections[3].a.data = plan->context.data;
}

attn_status attni_mha_run(attn_context *context, const attni_mha_problem *problem,
                          attni_mha_plan *plan, char *scratch) {
    if (attni_mha_is_idle(problem)) {
        /* There is no output, lse or weight to write, but what ran is still reported. */
        return attni_sdpa_run(context, &plan->attention, &plan->attention_plan, NULL,
                              problem->attention.report);
    }
    if (plan->wants_threads ||
        (problem->appends && attni_sdpa_wants_threads(&plan->attention_plan))) {
        /* No step that follows one that writes may be the first to find out that they cannot be
         * started. */
        ATTNI_TRY(attni_start_threads(context));
    }
    const forward_pass pass = {context, problem, plan,
                               attni_advance(scratch, (int64_t)plan->shared_offset)};
    attni_mha_place(problem, plan, scratch);
    ATTNI_TRY(project(&pass));
    ATTNI_TRY(attni_mha_position(context, problem, plan));
    attni_mha_fill_extra_columns(problem, plan);
    clear_padding(&pass);
    ATTNI_TRY(attni_mha_append(context, problem, plan));
    ATTNI_TRY(attend(&pass));
    return combine(&pass);
}
