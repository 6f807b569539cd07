/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_positions.c: what is done to projected queries and keys before they meet: norm, then rotation.
 */
#include "base/checked_size.h"
#include "multihead/mha_layer.h"
#include "rotary/rope_angles.h"
#include "rotary/rope_check.h"
#include "rotary/rope_rows.h"
#include "rotary/rope_run.h"
#include "tensor/element.h"

static const attni_rope_names rope_names = {
    .prefix = "rope.",
    .frequencies = "rope.frequencies",
    .cos = "rope.cos",
    .sin = "rope.sin",
    .positions = "rope.positions",
    .lengths = "rope.lengths",
};

/* Whose lengths are the cache's. */
static const attni_rope_names cached_rope_names = {
    .prefix = "rope.",
    .frequencies = "rope.frequencies",
    .cos = "rope.cos",
    .sin = "rope.sin",
    .positions = "rope.positions",
    .lengths = "cache.lengths",
};

/* Rows are those of each head, or of all heads side by side. */
static attni_norm_problem plan_norm(const attn_mha *layer, const attn_tensor *raw,
                                    const attn_tensor *heads, const attn_tensor *weight) {
    const bool is_of_head = layer->qk_norm == ATTN_QK_NORM_HEAD;
    const attn_tensor rows = is_of_head ? *heads : attni_mha_merged(heads);
    attni_norm_problem problem = {
        .input = is_of_head ? *raw : attni_mha_merged(raw),
        .output = rows,
        .has_weight = true,
        .weight = *weight,
        .epsilon = layer->qk_norm_epsilon == 0 ? attni_norm_default_epsilon(layer->score_dtype)
                                               : layer->qk_norm_epsilon,
        .weight_offset = layer->qk_norm_weight_offset,
        .score_dtype = layer->score_dtype,
        .row_rank = rows.rank - 1,
        .num_rows = 1,
        .num_cols = rows.shape[rows.rank - 1],
    };
    problem.weight_strides[problem.row_rank] = attni_stride(weight, 0);
    for (int32_t axis = 0; axis < problem.row_rank; ++axis) {
        problem.num_rows *= rows.shape[axis]; /* fits: they are rows of the plan's memory */
    }
    return problem;
}

static attn_status plan_rope(const attni_mha_problem *problem, const attn_tensor *heads,
                             attni_rope_problem *rope) {
    const attn_tensor rows = attni_mha_batched(problem, heads);
    const bool is_cached =
        problem->rope.lengths != NULL && problem->rope.lengths == problem->cache.lengths;
    const attni_rope_request request = {
        .input = &rows,
        .output = &rows,
        .params = &problem->rope,
        .names = is_cached ? &cached_rope_names : &rope_names,
        .tensor_data = ATTNI_DATA_IGNORED,
        .option_data = problem->data_rule,
    };
    return attni_rope_check(&request, rope);
}

/* A call that only reads a cache has no keys to be rotated; positions need not fit them. */
static bool has_keys(const attni_mha_problem *problem) {
    return problem->appends || !problem->has_cache;
}

attn_status attni_mha_plan_positions(const attni_mha_problem *problem, attni_mha_plan *plan) {
    const attn_mha *layer = problem->layer;
    if (layer->qk_norm != ATTN_QK_NORM_NONE) {
        plan->query_norm =
            plan_norm(layer, &plan->raw_query, &plan->query, &layer->slots[ATTNI_Q_NORM].view);
        plan->key_norm =
            plan_norm(layer, &plan->raw_key, &plan->key, &layer->slots[ATTNI_K_NORM].view);
    }
    if (!problem->has_rope) {
        return ATTN_OK;
    }
    if (problem->rope.rotary_dim == 0 && layer->head_dim % 2 != 0) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "rope.rotary_dim: expected an even number of head_dim=%lld features, got "
                          "0 (all of them)",
                          (long long)layer->head_dim);
    }
    ATTNI_TRY(plan_rope(problem, &plan->query, &plan->query_rope));
    return has_keys(problem) ? plan_rope(problem, &plan->key, &plan->key_rope) : ATTN_OK;
}

static attn_status normalize(attn_context *context, attni_norm_problem *norm,
                             const attn_tensor *raw, const attn_tensor *heads) {
    norm->input.data = raw->data;
    norm->output.data = heads->data;
    return attni_norm_run(context, norm);
}

static attn_status rotate(attn_context *context, const attni_rope_problem *planned, void *heads,
                          const double *frequencies) {
    attni_rope_problem rope = *planned;
    rope.input.data = heads;
    rope.output.data = heads;
    rope.first_frequencies = frequencies;
    return attni_rope_run(context, &rope);
}

/* Queries and keys turn alike: what pairs turn by is found once. */
static attn_status rotate_both(attn_context *context, const attni_mha_problem *problem,
                               const attni_mha_plan *plan) {
    const attni_rope_problem *queries = &plan->query_rope;
    double frequencies[ATTNI_ROPE_MOST_PAIRS];
    attni_rope_frequencies(queries, 0, attni_min(queries->num_pairs, ATTNI_ROPE_MOST_PAIRS),
                           frequencies);
    ATTNI_TRY(rotate(context, queries, plan->query.data, frequencies));
    return has_keys(problem) ? rotate(context, &plan->key_rope, plan->key.data, frequencies)
                             : ATTN_OK;
}

attn_status attni_mha_position(attn_context *context, const attni_mha_problem *problem,
                               attni_mha_plan *plan) {
    if (problem->layer->qk_norm != ATTN_QK_NORM_NONE) {
        ATTNI_TRY(normalize(context, &plan->query_norm, &plan->raw_query, &plan->query));
        ATTNI_TRY(normalize(context, &plan->key_norm, &plan->raw_key, &plan->key));
    }
    return problem->has_rope ? rotate_both(context, problem, plan) : ATTN_OK;
}
