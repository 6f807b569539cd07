/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_check.c: the shapes of query, key, value and output, and how their axes become the canonical
 * ones.
 */
#include "problem/sdpa_check.h"

#include <stdio.h>

#include "base/checked_size.h"
#include "problem/key_source.h"
#include "problem/sdpa_options.h"
#include "problem/sequence_check.h"
#include "tensor/element.h"

enum { PACKED_TEXT_BYTES = 32 };

/* The length of canonical axis `axis` in an input, 1 where it has none. */
static int64_t axis_length(const attn_tensor *tensor, int32_t axis, int32_t canonical_rank) {
    const int32_t own = axis - (canonical_rank - tensor->rank);
    return own < 0 ? 1 : tensor->shape[own];
}

/* Input `which` is not as long on an axis, counted from the end, as `first` is. The view of what
 * says where sequences are has axes behind the caller's. */
static attn_status fail_axis(const attni_input_views *inputs, int32_t which, int32_t first,
                             int64_t length, int32_t axis) {
    const attn_tensor *given = inputs->given[which];
    const bool is_table = which == ATTNI_KEY_PLACES; /* starts fail otherwise */
    const int32_t behind = is_table ? inputs->views[which]->rank - given->rank : 0;
    char text[ATTNI_SHAPE_TEXT_BYTES];
    return attni_fail(ATTN_ERROR_SHAPE, "%s: expected %lld (as %s) or 1 on axis %d, got %s",
                      inputs->names[which], (long long)length, inputs->names[first],
                      (int)(axis + behind), attni_shape_text(text, given->rank, given->shape));
}

/* Broadcasts one axis of the inputs that have it, as PyTorch does. */
static attn_status broadcast_axis(const attni_input_views *inputs, int32_t axis,
                                  int32_t canonical_rank, int64_t *length) {
    *length = 1;
    int32_t first = 0;
    for (int32_t i = 0; i < ATTNI_INPUTS; ++i) {
        const attn_tensor *view = inputs->views[i];
        const int64_t own = view != NULL ? axis_length(view, axis, canonical_rank) : 1;
        if (own == 1 || own == *length) {
            continue;
        }
        if (*length != 1) {
            return inputs->are_starts[i]
                       ? attni_fail_starts(inputs, i, *length)
                       : fail_axis(inputs, i, first, *length, axis - canonical_rank);
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

static attn_status check_heads(const attni_sdpa_request *request, const attni_input_views *inputs,
                               int32_t canonical_rank, attni_sdpa_problem *problem) {
    const int32_t head_axis = canonical_rank - 3;
    const attn_tensor *key = inputs->views[ATTNI_KEY];
    const attn_tensor *value = inputs->views[ATTNI_VALUE];
    if (request->params->enable_gqa == 0) {
        ATTNI_TRY(broadcast_axis(inputs, head_axis, canonical_rank, &problem->num_heads));
        const int64_t all = attni_max(1, problem->num_heads);
        problem->key_group = axis_length(key, head_axis, canonical_rank) == 1 ? all : 1;
        problem->value_group = axis_length(value, head_axis, canonical_rank) == 1 ? all : 1;
        return ATTN_OK;
    }
    problem->num_heads = axis_length(inputs->views[ATTNI_QUERY], head_axis, canonical_rank);
    ATTNI_TRY(check_group(inputs->names[ATTNI_KEY], key, problem->num_heads, &problem->key_group));
    return check_group(inputs->names[ATTNI_VALUE], value, problem->num_heads,
                       &problem->value_group);
}

/* Keys that the columns of a block mask reach, if they say: a length that is wrong is refused
 * later. */
static int64_t block_columns(const attn_sdpa_params *params, int64_t key_rows) {
    const attn_tensor *blocks = params->block_mask;
    if (blocks == NULL || blocks->rank < 1 || blocks->rank > ATTN_MAX_RANK ||
        params->block_columns < 1) {
        return key_rows;
    }
    const int64_t columns = blocks->shape[blocks->rank - 1];
    int64_t keys;
    return columns >= 0 && columns != 1 && attni_multiply(columns, params->block_columns, &keys)
               ? attni_min(keys, key_rows)
               : key_rows;
}

int64_t attni_choose_columns(const attn_sdpa_params *params, const attn_tensor *with_columns,
                             int64_t extra_cols, int64_t otherwise) {
    const attn_tensor *mask = params->mask_start == NULL ? params->mask : NULL;
    const attn_tensor *const columned[] = {with_columns, params->weights, params->scores, mask,
                                           params->bias};
    for (int32_t i = 0; i < 5; ++i) {
        const attn_tensor *tensor = columned[i];
        if (tensor != NULL && tensor->rank > 0 && tensor->rank <= ATTN_MAX_RANK) {
            const int64_t behind = i <= 2 ? extra_cols : 0;
            const int64_t columns = tensor->shape[tensor->rank - 1] - behind;
            if (columns >= 0 && (i <= 2 || columns != 1)) {
                return columns;
            }
        }
    }
    return block_columns(params, otherwise);
}

/* S may exceed what any tensor has rows or elements for, by pages or columns that repeat: a row of
 * scores must still be memory that there can be. */
static attn_status check_columns(const attni_input_views *inputs,
                                 const attni_sdpa_problem *problem) {
    int64_t bytes;
    return attni_multiply(problem->src_len, (int64_t)sizeof(double), &bytes)
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_OVERFLOW,
                            "%s: a row of scores of S=%lld keys exceeds 2^63 bytes",
                            inputs->names[ATTNI_KEY], (long long)problem->src_len);
}

/* Sizes L, S, E, Ev from the last two axes. */
static attn_status check_sizes(const attni_sdpa_request *request, const attni_input_views *inputs,
                               attni_sdpa_problem *problem) {
    const attn_tensor *query = inputs->views[ATTNI_QUERY];
    const attn_tensor *key = inputs->views[ATTNI_KEY];
    const attn_tensor *value = inputs->views[ATTNI_VALUE];
    const attn_tensor *given = inputs->given[ATTNI_KEY];
    char text[ATTNI_SHAPE_TEXT_BYTES];
    problem->tgt_len = query->shape[query->rank - 2];
    problem->head_dim = query->shape[query->rank - 1];
    const attn_tensor *extra = request->extra_key;
    problem->key_rows = key->shape[key->rank - 2];
    problem->extra_cols = extra != NULL ? extra->shape[extra->rank - 2] : 0;
    const bool is_ragged = problem->key_starts.is_present || problem->pages.starts.is_present;
    problem->src_len = !is_ragged ? problem->key_rows
                       : request->key_columns != NULL
                           ? *request->key_columns
                           : attni_choose_columns(request->params, request->with_columns,
                                                  problem->extra_cols, problem->key_rows);
    problem->value_dim = value->shape[value->rank - 1];
    if (key->shape[key->rank - 1] != problem->head_dim) {
        const int32_t values = attn_dtype_values(given->dtype);
        char packed[PACKED_TEXT_BYTES] = "";
        if (values > 1) {
            (void)snprintf(packed, sizeof packed, " of %d values each", (int)values);
        }
        return attni_fail(
            ATTN_ERROR_SHAPE, "%s: expected shape (..., %s, E=%lld) as query's last axis, got %s%s",
            inputs->names[ATTNI_KEY], inputs->key_rows_name, (long long)problem->head_dim,
            attni_shape_text(text, given->rank, given->shape), packed);
    }
    if (value->shape[value->rank - 2] != key->shape[key->rank - 2]) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "%s: expected shape (..., %s=%lld, Ev) with as many rows as %s, got %s",
                          inputs->names[ATTNI_VALUE], inputs->key_rows_name,
                          (long long)key->shape[key->rank - 2], inputs->names[ATTNI_KEY],
                          attni_shape_text(text, value->rank, value->shape));
    }
    return request->params->kv == NULL ? ATTN_OK : check_columns(inputs, problem);
}

attni_operand attni_operand_of(const attn_tensor *tensor, int32_t canonical_rank) {
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

/* Integers with scales stand for float32 numbers. */
static attn_status check_beside_query(const attni_input_views *inputs, int32_t which,
                                      int32_t query_dtype) {
    const attn_tensor *view = inputs->views[which];
    return attni_is_quantized(view->dtype) && query_dtype != ATTN_DTYPE_FLOAT64
               ? ATTN_OK
               : attni_check_beside(inputs->names[which], view, query_dtype);
}

/* Sizes, heads and batch axes, from query, key and value and what says where they are. */
static attn_status check_inputs(const attni_sdpa_request *request, attni_input_views *inputs,
                                attni_sdpa_problem *problem) {
    *problem = (attni_sdpa_problem){0};
    ATTNI_TRY(attni_read_inputs(request, inputs, problem));
    int32_t rank = 2;
    for (int32_t i = 0; i < ATTNI_INPUTS; ++i) {
        rank = inputs->views[i] != NULL ? (int32_t)attni_max(rank, inputs->views[i]->rank) : rank;
    }
    const int32_t query_dtype = request->query->dtype;
    problem->dtype = request->dtype != 0 ? request->dtype : query_dtype;
    problem->score_dtype = attni_score_dtype(query_dtype);
    ATTNI_TRY(check_beside_query(inputs, ATTNI_KEY, query_dtype));
    ATTNI_TRY(check_beside_query(inputs, ATTNI_VALUE, query_dtype));
    ATTNI_TRY(check_sizes(request, inputs, problem));
    const int32_t canonical_rank = (int32_t)attni_max(rank, 3);
    problem->has_heads = rank > 2;
    problem->batch_rank = canonical_rank - 3;
    ATTNI_TRY(check_heads(request, inputs, canonical_rank, problem));
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        ATTNI_TRY(broadcast_axis(inputs, axis, canonical_rank, &problem->batch_shape[axis]));
    }
    return attni_place_sequences(inputs, problem);
}

/* The axes of output. */
static int32_t output_axes(const attni_sdpa_problem *problem, attni_axis axes[ATTN_MAX_RANK]) {
    int32_t count = 0;
    for (; count < problem->batch_rank && !problem->query_starts.is_present; ++count) {
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
    if (!request->reads_results) {
        ATTNI_TRY(attni_check_writable("output", request->output));
    }
    problem->output = attni_operand_of(request->output, problem->batch_rank + 3);
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
    attni_input_views inputs;
    ATTNI_TRY(check_inputs(request, &inputs, problem));
    ATTNI_TRY(check_output(request, problem));
    problem->num_batches = 1;
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        /* Fits: output's size was checked with empty axes counted as 1. */
        problem->num_batches *= problem->batch_shape[axis];
    }
    problem->call_batches = problem->num_batches;
    const int32_t rank = problem->batch_rank + 3;
    problem->query = attni_operand_of(inputs.views[ATTNI_QUERY], rank);
    problem->key = attni_operand_of(inputs.views[ATTNI_KEY], rank);
    problem->value = attni_operand_of(inputs.views[ATTNI_VALUE], rank);
    if (problem->extra_cols > 0) {
        problem->extra_key = attni_operand_of(request->extra_key, rank);
        problem->extra_value = attni_operand_of(request->extra_value, rank);
    }
    ATTNI_TRY(attni_sdpa_check_options(request, &inputs, problem));
    problem->rows_are_written = writes_rows(problem);
    if (request->option_data == ATTNI_DATA_REQUIRED) {
        ATTNI_TRY(attni_check_sequences(&inputs, problem));
    }
    if (problem->pages.count == 0) {
        /* Nobody sees a key, and so it stays when another thread writes lengths. */
        problem->pages.num_entries = 0;
    }
    return ATTN_OK;
}

attn_status attni_sdpa_describe_output(const attni_sdpa_request *request, attn_tensor *output) {
    attni_sdpa_problem problem;
    attni_input_views inputs;
    ATTNI_TRY(check_inputs(request, &inputs, &problem));
    attni_axis axes[ATTN_MAX_RANK] = {{0}};
    *output = (attn_tensor){.dtype = problem.dtype, .rank = output_axes(&problem, axes)};
    for (int32_t axis = 0; axis < output->rank; ++axis) {
        output->shape[axis] = axes[axis].length;
    }
    attni_make_contiguous(output);
    return attni_check_extent("output", output);
}
