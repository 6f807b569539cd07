/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_check.c: the shapes of new rows and of what they are stored in, and where they go.
 */
#include "cache/append_check.h"

#include "base/checked_size.h"
#include "base/versioned_struct.h"
#include "cache/append_places.h"
#include "cache/append_scales.h"
#include "problem/key_source.h"
#include "problem/sequence_check.h"
#include "tensor/element.h"

/* Batch axes of the cache: those of the tensor that says where sequences are, or of its keys. */
static void take_batch_axes(const attni_input_views *inputs, attni_sdpa_problem *cache) {
    const attn_tensor *places = inputs->views[ATTNI_KEY_PLACES];
    const attn_tensor *like = places != NULL ? places : inputs->views[ATTNI_KEY];
    cache->batch_rank = like->rank - 3;
    cache->num_batches = 1;
    for (int32_t axis = 0; axis < cache->batch_rank; ++axis) {
        cache->batch_shape[axis] = like->shape[axis];
        cache->num_batches *= like->shape[axis]; /* fits: the view's size was checked */
    }
}

/* The cache as far as it has to do with sequences. */
static attn_status check_cache(const attni_append_request *request, attni_input_views *inputs,
                               attni_sdpa_problem *cache) {
    attni_start_inputs(inputs);
    *cache = (attni_sdpa_problem){0};
    if (request->kv == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected where keys and values lie, got NULL",
                          request->kv_names->kv);
    }
    ATTNI_TRY(attni_read_kv(request->kv, request->kv_names, request->kv_data, inputs, cache));
    for (int32_t which = ATTNI_KEY; which <= ATTNI_VALUE; ++which) {
        ATTNI_TRY(attni_check_rank(inputs->names[which], inputs->views[which], 3, ATTN_MAX_RANK));
    }
    take_batch_axes(inputs, cache);
    const attn_tensor *key = inputs->views[ATTNI_KEY];
    cache->key_rows = key->shape[key->rank - 2];
    cache->src_len = cache->key_rows;
    attni_place_kv(inputs, cache); /* Starts have the batch axis that they gave. */
    return inputs->key_lengths == NULL
               ? ATTN_OK
               : attni_check_batch_indices(inputs->lengths_name, inputs->key_lengths,
                                           request->kv_data, cache, &cache->key_lengths);
}

/* Strides on the axes (batch axes, head, row, feature); one that has no batch axes is shared. */
static void place_rows(const attn_tensor *tensor, int32_t batch_rank, attni_operand *operand) {
    attni_place_operand(tensor, operand);
    const int32_t missing = batch_rank + 3 - tensor->rank;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        operand->strides[axis + missing] = attni_stride(tensor, axis);
    }
}

/* Expected axes of a view with as many heads and features as another. */
static int32_t rows_axes(const attni_append_problem *problem, const attn_tensor *like,
                         const char *rows_name, int64_t rows, bool has_batches, attni_axis *axes) {
    const attni_sdpa_problem *cache = &problem->cache;
    int32_t count = 0;
    for (; has_batches && count < cache->batch_rank; ++count) {
        axes[count] = (attni_axis){NULL, cache->batch_shape[count]};
    }
    axes[count++] = (attni_axis){"H", like->shape[like->rank - 3]};
    axes[count++] = (attni_axis){rows_name, rows};
    axes[count++] = (attni_axis){"E", like->shape[like->rank - 1]};
    return count;
}

/* New keys or values, and the tensor that they are stored in. */
static attn_status check_part(const attni_append_request *request, const attni_input_views *inputs,
                              int32_t which, attni_append_problem *problem) {
    const bool is_key = which == ATTNI_KEY;
    const char *name = is_key ? "key" : "value";
    const attn_tensor *rows = is_key ? request->key : request->value;
    attni_new_rows *part = &problem->parts[is_key ? ATTNI_NEW_KEYS : ATTNI_NEW_VALUES];
    const attn_tensor *stored = inputs->views[which];
    const bool is_ragged = problem->starts.is_present;
    const bool is_shared = inputs->views[ATTNI_KEY_PLACES] != NULL;
    attni_axis axes[ATTN_MAX_RANK];
    ATTNI_TRY(attni_check_tensor(name, rows, request->row_data));
    ATTNI_TRY(attni_check_float(name, rows));
    const int64_t num_rows = problem->num_rows >= 0 ? problem->num_rows : (int64_t)ATTNI_ANY_LENGTH;
    ATTNI_TRY(attni_check_shape(
        name, rows, axes,
        rows_axes(problem, stored, is_ragged ? "total" : "L", num_rows, !is_ragged, axes)));
    ATTNI_TRY(attni_check_shape(
        inputs->names[which], stored, axes,
        rows_axes(problem, stored, "C", problem->cache.key_rows, !is_shared, axes)));
    problem->num_rows = rows->shape[rows->rank - 2];
    part->heads = stored->shape[stored->rank - 3];
    part->features = stored->shape[stored->rank - 1];
    place_rows(rows, problem->cache.batch_rank, &part->from);
    place_rows(stored, problem->cache.batch_rank, &part->to);
    part->page_stride =
        is_key ? problem->cache.pages.key_stride : problem->cache.pages.value_stride;
    part->quantization =
        is_key ? problem->cache.key_quantization : problem->cache.value_quantization;
    return attni_check_scales(inputs, which, part);
}

static attn_status check_positions(const attni_append_request *request,
                                   const attn_tensor *positions, attni_append_problem *problem) {
    const attni_sdpa_problem *cache = &problem->cache;
    const bool is_ragged = problem->starts.is_present;
    if (positions == NULL) {
        return cache->key_lengths.is_present
                   ? ATTN_OK
                   : attni_fail(ATTN_ERROR_NULL, "%s: expected lengths without positions, got NULL",
                                request->kv_names->of[ATTNI_KV_LENGTHS]);
    }
    attni_axis axes[ATTN_MAX_RANK];
    int64_t strides[ATTN_MAX_RANK] = {0};
    int32_t count = 0;
    for (; !is_ragged && count < cache->batch_rank; ++count) {
        axes[count] = (attni_axis){NULL, cache->batch_shape[count]};
    }
    axes[count] = (attni_axis){is_ragged ? "total" : "L", problem->num_rows};
    ATTNI_TRY(attni_check_tensor("positions", positions, request->kv_data));
    ATTNI_TRY(attni_check_index("positions", positions));
    ATTNI_TRY(attni_broadcast_strides("positions", positions, axes, count + 1, strides));
    for (int32_t axis = 0; axis < count; ++axis) {
        problem->positions.strides[axis] = strides[axis];
    }
    problem->positions.strides[cache->batch_rank] = strides[count];
    attni_place_operand(positions, &problem->positions);
    return ATTN_OK;
}

/* ---- values ---- */

static attn_status check_place(const attni_kv_names *names, const attni_append_problem *problem,
                               const attni_append_sequence *sequence, int64_t row) {
    const attni_pages *pages = &problem->cache.pages;
    const int64_t place = attni_append_place(problem, sequence, row);
    const long long batch = (long long)sequence->cache.batch;
    if (place < 0 && !problem->positions.is_present) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s: expected %lld new rows and more, which they count, got %lld of "
                          "sequence %lld",
                          names->of[ATTNI_KV_LENGTHS],
                          (long long)(sequence->rows.end - sequence->rows.begin),
                          (long long)sequence->cache.visibility.key_length, batch);
    }
    if (place >= sequence->room) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "positions: expected a row below %lld, which is the room of sequence "
                          "%lld, got %lld for row %lld",
                          (long long)sequence->room, batch, (long long)place, (long long)row);
    }
    return place < 0 || pages->rows == 0
               ? ATTN_OK
               : attni_check_page(names, &problem->cache, &sequence->cache, place / pages->rows);
}

static bool stores_elements(const attni_append_problem *problem) {
    const attni_new_rows *keys = &problem->parts[ATTNI_NEW_KEYS];
    const attni_new_rows *values = &problem->parts[ATTNI_NEW_VALUES];
    return (keys->heads > 0 && keys->features > 0) || (values->heads > 0 && values->features > 0);
}

static attn_status check_places(const attni_kv_names *names, const attni_append_problem *problem) {
    for (int64_t batch = 0; batch < problem->cache.num_batches; ++batch) {
        const attni_append_sequence sequence = attni_append_sequence_of(problem, batch);
        for (int64_t row = 0; row < sequence.rows.end - sequence.rows.begin; ++row) {
            ATTNI_TRY(check_place(names, problem, &sequence, row));
        }
    }
    return ATTN_OK;
}

static attn_status check_values(const attni_input_views *inputs, attni_append_problem *problem) {
    const attni_sdpa_problem *cache = &problem->cache;
    ATTNI_TRY(
        attni_check_starts("starts", &problem->starts, cache->num_batches, problem->num_rows));
    ATTNI_TRY(attni_check_sequences(inputs, cache));
    const bool has_own = cache->key_starts.is_present || cache->pages.starts.is_present;
    if (cache->key_lengths.is_present && !has_own) {
        ATTNI_TRY(attni_check_lengths(inputs->lengths_name, inputs->key_lengths, cache->src_len));
    }
    return problem->stores_elements ? check_places(inputs->kv_names, problem) : ATTN_OK;
}

attn_status attni_append_check(const attni_append_request *request, attni_append_problem *problem) {
    attni_input_views inputs;
    attn_kv_append_params known;
    *problem = (attni_append_problem){.num_rows = ATTNI_ANY_LENGTH};
    ATTNI_TRY(attni_struct_read("params", request->params,
                                ATTNI_BYTES_THROUGH(attn_kv_append_params, positions), sizeof known,
                                &known));
    ATTNI_TRY(check_cache(request, &inputs, &problem->cache));
    if (known.starts != NULL) {
        inputs.names[ATTNI_QUERY_PLACES] = "starts";
        ATTNI_TRY(attni_take_starts("starts", known.starts, request->kv_data, &problem->starts,
                                    &inputs, ATTNI_QUERY_PLACES));
        ATTNI_TRY(attni_check_starts_axis(&inputs, ATTNI_QUERY_PLACES, &problem->starts,
                                          &problem->cache));
    }
    ATTNI_TRY(check_part(request, &inputs, ATTNI_KEY, problem));
    ATTNI_TRY(check_part(request, &inputs, ATTNI_VALUE, problem));
    ATTNI_TRY(check_positions(request, known.positions, problem));
    problem->stores_elements = stores_elements(problem);
    return request->kv_data == ATTNI_DATA_REQUIRED ? check_values(&inputs, problem) : ATTN_OK;
}
