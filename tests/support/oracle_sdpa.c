/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_sdpa.c: turns the arguments of attn_sdpa into plain arrays by PyTorch's broadcasting
 * rules.
 */
#include "support/oracle_sdpa.h"

#include <stdlib.h>
#include <string.h>

/* Length of the axis `from_end` places before the end (1: the last one); 1 where the tensor has no
 * such axis. */
static int64_t axis_from_end(const attn_tensor *tensor, int32_t from_end) {
    return from_end <= tensor->rank ? tensor->shape[tensor->rank - from_end] : 1;
}

static int64_t broadcast_length(int64_t a, int64_t b) {
    return a == 1 ? b : a;
}

oracle_sdpa_shape oracle_sdpa_output_shape(const attn_tensor *query, const attn_tensor *key,
                                           const attn_tensor *value,
                                           const attn_sdpa_params *params) {
    const int is_grouped = params != NULL && params->enable_gqa;
    oracle_sdpa_shape out = {.rank = query->rank};
    out.rank = key->rank > out.rank ? key->rank : out.rank;
    out.rank = value->rank > out.rank ? value->rank : out.rank;
    for (int32_t from_end = 3; from_end <= out.rank; ++from_end) {
        int64_t length = axis_from_end(query, from_end);
        if (from_end > 3 || !is_grouped) {
            length = broadcast_length(length, axis_from_end(key, from_end));
            length = broadcast_length(length, axis_from_end(value, from_end));
        }
        out.shape[out.rank - from_end] = length;
    }
    out.shape[out.rank - 2] = axis_from_end(query, 2);
    out.shape[out.rank - 1] = axis_from_end(value, 1);
    return out;
}

/*
 * A query, key or value as (batch axes, heads, rows, columns). With fewer heads than the output
 * (grouped queries, or one head for all) output head h reads the tensor's head h / (heads / its own
 * heads).
 */
static void expand_operand(const attn_tensor *tensor, const oracle_sdpa_shape *out,
                           double *values) {
    const int64_t heads = out->rank > 2 ? out->shape[out->rank - 3] : 1,
                  own_heads = axis_from_end(tensor, 3);
    const int64_t matrix = axis_from_end(tensor, 2) * axis_from_end(tensor, 1);
    int64_t shape[ATTN_MAX_RANK], batches = 1;
    for (int32_t axis = 0; axis < out->rank; ++axis) {
        shape[axis] = axis_from_end(tensor, out->rank - axis);
        if (axis < out->rank - 3) {
            shape[axis] = out->shape[axis];
            batches *= out->shape[axis];
        }
    }
    double *own = oracle_expand(tensor, out->rank, shape);
    for (int64_t bh = 0; bh < batches * heads && own_heads > 0; ++bh) {
        const int64_t head = bh % heads / (heads / own_heads);
        memcpy(values + bh * matrix, own + (bh / heads * own_heads + head) * matrix,
               (size_t)matrix * sizeof(double));
    }
    free(own);
}

static int64_t *expand_per_batch(const attn_tensor *tensor, const oracle_sdpa_shape *out) {
    return oracle_expand_integers(tensor, out->rank > 3 ? out->rank - 3 : 0, out->shape);
}

/* Positions and lengths; what else hides keys whatever they hold needs no broadcasting. */
static void apply_sight(const attn_sdpa_params *params, const oracle_sdpa_shape *out,
                        oracle_problem *problem) {
    if (params != NULL && params->query_offset != NULL) {
        free(problem->query_offset);
        problem->query_offset = expand_per_batch(params->query_offset, out);
    }
    if (params != NULL && params->key_lengths != NULL) {
        free(problem->key_lengths);
        problem->key_lengths = expand_per_batch(params->key_lengths, out);
    }
    if (params != NULL && params->align_end) {
        oracle_problem_align_end(problem);
    }
    if (params != NULL && params->mask_start != NULL) {
        problem->mask_start = expand_per_batch(params->mask_start, out);
        problem->mask_columns = axis_from_end(params->mask, 1);
    }
    oracle_problem_set_blocks(problem, params, out->rank - 2, out->shape);
}

static void apply_masks(const attn_sdpa_params *params, const oracle_sdpa_shape *out,
                        oracle_problem *problem) {
    int64_t scores[ATTN_MAX_RANK];
    memcpy(scores, out->shape, sizeof scores);
    scores[out->rank - 1] = problem->keys;
    if (params != NULL && params->mask != NULL) {
        oracle_problem_add_mask(problem, params->mask_kind, params->mask, out->rank, scores);
    }
    if (params != NULL && params->bias != NULL) {
        oracle_mask_add(&problem->mask, ATTN_MASK_ADDITIVE, params->bias, out->rank, scores);
    }
    oracle_problem_add_position_bias(problem, params);
}

static int64_t batches_of(const oracle_sdpa_shape *out) {
    return out->rank > 3 ? oracle_count(out->rank - 3, out->shape) : 1;
}

double oracle_weight_unit(const char *kernels, const attn_tensor *query, const attn_tensor *key,
                          const attn_tensor *value) {
    const char *ending = kernels != NULL ? strrchr(kernels, '_') : NULL;
    const int has_pairs = ending != NULL && strcmp(ending, "_bf16") == 0;
    const int is_of_pairs = query->dtype == ATTN_DTYPE_BFLOAT16 &&
                            key->dtype == ATTN_DTYPE_BFLOAT16 &&
                            value->dtype == ATTN_DTYPE_BFLOAT16;
    return has_pairs && is_of_pairs ? 0x1p-8 : 0;
}

oracle_problem oracle_sdpa_problem(const attn_tensor *query, const attn_tensor *key,
                                   const attn_tensor *value, const attn_sdpa_params *params,
                                   double weight_unit) {
    const oracle_sdpa_shape out = oracle_sdpa_output_shape(query, key, value, params);
    oracle_problem problem = {
        .batches = batches_of(&out),
        .heads = out.rank > 2 ? out.shape[out.rank - 3] : 1,
        .rows = axis_from_end(query, 2),
        .keys = axis_from_end(key, 2),
        .features = axis_from_end(query, 1),
        .value_features = axis_from_end(value, 1),
        .rounding = bound_rounding_of(query->dtype),
        .weight_unit = weight_unit,
    };
    oracle_problem_allocate(&problem);
    oracle_problem_set_options(&problem, params);
    expand_operand(query, &out, problem.query.value);
    expand_operand(key, &out, problem.key.value);
    expand_operand(value, &out, problem.value.value);
    apply_sight(params, &out, &problem);
    apply_masks(params, &out, &problem);
    return problem;
}

oracle_result oracle_sdpa(const attn_tensor *query, const attn_tensor *key,
                          const attn_tensor *value, const attn_sdpa_params *params,
                          double weight_unit) {
    oracle_problem problem = oracle_sdpa_problem(query, key, value, params, weight_unit);
    const oracle_result result = oracle_attention(&problem);
    oracle_problem_destroy(&problem);
    return result;
}

unsigned char *oracle_sdpa_hidden_keys(const attn_tensor *query, const attn_tensor *key,
                                       const attn_tensor *value, const attn_sdpa_params *params) {
    const oracle_sdpa_shape out = oracle_sdpa_output_shape(query, key, value, params);
    /* Without features there is nothing in it but who may see what, which is the same for all heads
     * but by blocks. */
    const int has_heads = params != NULL && params->block_mask != NULL && out.rank > 2;
    oracle_problem problem = {
        .batches = batches_of(&out),
        .heads = has_heads ? out.shape[out.rank - 3] : params != NULL && params->block_mask != NULL,
        .rows = axis_from_end(query, 2),
        .keys = axis_from_end(key, 2),
    };
    oracle_problem_allocate(&problem);
    oracle_problem_set_options(&problem, params);
    apply_sight(params, &out, &problem);
    unsigned char *hidden = oracle_hidden_keys(&problem);
    oracle_problem_destroy(&problem);
    return hidden;
}
