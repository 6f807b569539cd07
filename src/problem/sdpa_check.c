/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_check.c: the shapes of query, key, value and output, and how their axes become the canonical
 * ones.
 */
#include "problem/sdpa_check.h"

#include "base/checked_size.h"
#include "problem/sdpa_options.h"
#include "tensor/element.h"

static attn_status check_input(const char *name, const attn_tensor *tensor,
                               attni_data_rule data_rule) {
    ATTNI_TRY(attni_check_tensor(name, tensor, data_rule));
    ATTNI_TRY(attni_check_rank(name, tensor, 2, ATTN_MAX_RANK));
    return attni_check_float(name, tensor);
}

/* The length of canonical axis `axis` in an input, 1 where it has none. */
static int64_t axis_length(const attn_tensor *tensor, int32_t axis, int32_t canonical_rank) {
    const int32_t own = axis - (canonical_rank - tensor->rank);
    return own < 0 ? 1 : tensor->shape[own];
}

/* Broadcasts one axis of query, key and value as PyTorch does. */
static attn_status broadcast_axis(const attn_tensor *const inputs[3], int32_t axis,
                                  int32_t canonical_rank, int64_t *length) {
    static const char *const names[] = {"query", "key", "value"};
    *length = 1;
    int32_t first = 0;
    for (int32_t i = 0; i < 3; ++i) {
        const int64_t own = axis_length(inputs[i], axis, canonical_rank);
        if (own == 1 || own == *length) {
            continue;
        }
        if (*length != 1) {
            char text[ATTNI_SHAPE_TEXT_BYTES];
            return attni_fail(ATTN_ERROR_SHAPE, "%s: expected %lld (as %s) or 1 on axis %d, got %s",
                              names[i], (long long)*length, names[first],
                              (int)(axis - canonical_rank),
                              attni_shape_text(text, inputs[i]->rank, inputs[i]->shape));
        }
        *length = own;
        first = i;
    }
    return ATTN_OK;
}

/* How many query heads share one head of `tensor`. */
static attn_status check_group(const char *name, const attn_tensor *tensor, int64_t num_heads,
                               int64_t *group) {
    const int64_t heads = tensor->rank > 2 ? tensor->shape[tensor->rank - 3] : 1;
    if (heads == 0 ? num_heads != 0 : num_heads % heads != 0) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "%s: expected a number of heads that divides query's %lld, got %lld",
                          name, (long long)num_heads, (long long)heads);
    }
    *group = heads == 0 ? 1 : attni_max(1, num_heads / heads);
    return ATTN_OK;
}

static attn_status check_heads(const attni_sdpa_request *request,
                               const attn_tensor *const inputs[3], int32_t canonical_rank,
                               attni_sdpa_problem *problem) {
    const int32_t head_axis = canonical_rank - 3;
    if (request->params->enable_gqa == 0) {
        ATTNI_TRY(broadcast_axis(inputs, head_axis, canonical_rank, &problem->num_heads));
        const int64_t all = attni_max(1, problem->num_heads);
        problem->key_group = axis_length(request->key, head_axis, canonical_rank) == 1 ? all : 1;
        problem->value_group =
            axis_length(request->value, head_axis, canonical_rank) == 1 ? all : 1;
        return ATTN_OK;
    }
    problem->num_heads = axis_length(request->query, head_axis, canonical_rank);
    ATTNI_TRY(check_group("key", request->key, problem->num_heads, &problem->key_group));
    return check_group("value", request->value, problem->num_heads, &problem->value_group);
}

/* Sizes L, S, E, Ev from the last two axes. */
static attn_status check_sizes(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    const attn_tensor *query = request->query;
    const attn_tensor *key = request->key;
    const attn_tensor *value = request->value;
    char text[ATTNI_SHAPE_TEXT_BYTES];
    problem->tgt_len = query->shape[query->rank - 2];
    problem->head_dim = query->shape[query->rank - 1];
    problem->src_len = key->shape[key->rank - 2] - request->extra_cols;
    problem->extra_cols = request->extra_cols;
    problem->value_dim = value->shape[value->rank - 1];
    if (key->shape[key->rank - 1] != problem->head_dim) {
        return attni_fail(
            ATTN_ERROR_SHAPE, "key: expected shape (..., S, E=%lld) as query's last axis, got %s",
            (long long)problem->head_dim, attni_shape_text(text, key->rank, key->shape));
    }
    if (value->shape[value->rank - 2] != key->shape[key->rank - 2]) {
        return attni_fail(
            ATTN_ERROR_SHAPE,
            "value: expected shape (..., S=%lld, Ev) with as many rows as key, got %s",
            (long long)key->shape[key->rank - 2],
            attni_shape_text(text, value->rank, value->shape));
    }
    return ATTN_OK;
}

/* A tensor's strides on the canonical axes: 0 where its length is 1 or the axis is missing, and all
 * of them where it is empty, since its data may be NULL and NULL has no neighbours. */
static attni_operand input_operand(const attn_tensor *tensor, int32_t canonical_rank) {
    attni_operand operand = {.data = tensor->data,
                             .element_bytes = (int64_t)attn_dtype_size_bytes(tensor->dtype),
                             .dtype = tensor->dtype,
                             .is_present = true};
    bool is_empty = false;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        is_empty = is_empty || tensor->shape[axis] == 0;
    }
    for (int32_t axis = 0; axis < canonical_rank && !is_empty; ++axis) {
        const int32_t own = axis - (canonical_rank - tensor->rank);
        operand.strides[axis] = own < 0 ? 0 : attni_stride(tensor, own);
    }
    return operand;
}

/* Sizes, heads and batch axes, from query, key and value. */
static attn_status check_inputs(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    const attn_tensor *const inputs[] = {request->query, request->key, request->value};
    static const char *const names[] = {"query", "key", "value"};
    *problem = (attni_sdpa_problem){0};
    int32_t rank = 2;
    for (int32_t i = 0; i < 3; ++i) {
        ATTNI_TRY(check_input(names[i], inputs[i], request->tensor_data));
        rank = (int32_t)attni_max(rank, inputs[i]->rank);
    }
    const int32_t query_dtype = request->query->dtype;
    problem->dtype = request->dtype != 0 ? request->dtype : query_dtype;
    problem->score_dtype = attni_score_dtype(query_dtype);
    ATTNI_TRY(attni_check_beside("key", request->key, query_dtype));
    ATTNI_TRY(attni_check_beside("value", request->value, query_dtype));
    ATTNI_TRY(check_sizes(request, problem));
    const int32_t canonical_rank = (int32_t)attni_max(rank, 3);
    problem->has_heads = rank > 2;
    problem->batch_rank = canonical_rank - 3;
    ATTNI_TRY(check_heads(request, inputs, canonical_rank, problem));
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        ATTNI_TRY(broadcast_axis(inputs, axis, canonical_rank, &problem->batch_shape[axis]));
    }
    return ATTN_OK;
}

/* The axes of output. */
static int32_t output_axes(const attni_sdpa_problem *problem, attni_axis axes[ATTN_MAX_RANK]) {
    int32_t count = 0;
    for (; count < problem->batch_rank; ++count) {
        axes[count] = (attni_axis){NULL, problem->batch_shape[count]};
    }
    if (problem->has_heads) {
        axes[count++] = (attni_axis){"Hq", problem->num_heads};
    }
    axes[count++] = (attni_axis){"L", problem->tgt_len};
    axes[count++] = (attni_axis){"Ev", problem->value_dim};
    return count;
}

static attn_status check_output(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    attni_axis axes[ATTN_MAX_RANK];
    const int32_t count = output_axes(problem, axes);
    ATTNI_TRY(attni_check_tensor("output", request->output, request->tensor_data));
    ATTNI_TRY(attni_check_result("output", request->output, problem->dtype));
    ATTNI_TRY(attni_check_shape("output", request->output, axes, count));
    ATTNI_TRY(attni_check_writable("output", request->output));
    problem->output = input_operand(request->output, problem->batch_rank + 3);
    return ATTN_OK;
}

/* Averaged weights are there without heads, too, and then 0. */
static bool writes_rows(const attni_sdpa_problem *problem) {
    const bool has_weights =
        problem->weights.is_present && problem->src_len + problem->extra_cols > 0;
    const bool has_own = problem->value_dim > 0 || problem->lse.is_present || has_weights;
    return (problem->num_heads > 0 && has_own) || (has_weights && problem->average_weights);
}

attn_status attni_sdpa_check(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    ATTNI_TRY(check_inputs(request, problem));
    ATTNI_TRY(check_output(request, problem));
    problem->num_batches = 1;
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        /* Fits: output's size was checked with empty axes counted as 1. */
        problem->num_batches *= problem->batch_shape[axis];
    }
    problem->query = input_operand(request->query, problem->batch_rank + 3);
    problem->key = input_operand(request->key, problem->batch_rank + 3);
    problem->value = input_operand(request->value, problem->batch_rank + 3);
    ATTNI_TRY(attni_sdpa_check_options(request, problem));
    problem->rows_are_written = writes_rows(problem);
    return ATTN_OK;
}

attn_status attni_sdpa_describe_output(const attni_sdpa_request *request, attn_tensor *output) {
    attni_sdpa_problem problem;
    ATTNI_TRY(check_inputs(request, &problem));
    attni_axis axes[ATTN_MAX_RANK] = {{0}};
    *output = (attn_tensor){.dtype = problem.dtype, .rank = output_axes(&problem, axes)};
    for (int32_t axis = 0; axis < output->rank; ++axis) {
        output->shape[axis] = axes[axis].length;
    }
    attni_make_contiguous(output);
    return attni_check_extent("output", output);
}
