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
static attn_status check_cache(const attn_kv *kv, attni_input_views *inputs,
                               attni_sdpa_problem *cache) {
    attni_start_inputs(inputs);
    *cache = (attni_sdpa_problem){0};
    if (kv == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "kv: expected where keys and values lie, got NULL");
    }
    ATTNI_TRY(attni_read_kv(kv, ATTNI_DATA_REQUIRED, inputs, cache));
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
                                           ATTNI_DATA_REQUIRED, cache, &cache->key_lengths);
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
static attn_status check_part(const attni_input_views *inputs, int32_t which, const char *name,
                              const attn_tensor *rows, attni_append_problem *problem,
                              attni_new_rows *part) {
    const attn_tensor *stored = inputs->views[which];
    const bool is_ragged = problem->starts.is_present;
    const bool is_shared = inputs->views[ATTNI_KEY_PLACES] != NULL;
    attni_axis axes[ATTN_MAX_RANK];
    ATTNI_TRY(attni_check_tensor(name, rows, ATTNI_DATA_REQUIRED));
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
    part->quantization =
        which == ATTNI_KEY ? problem->cache.key_quantization : problem->cache.value_quantization;
    return attni_check_scales(inputs, which, part);
}

static attn_status check_positions(const attn_tensor *positions, attni_append_problem *problem) {
    const attni_sdpa_problem *cache = &problem->cache;
    const bool is_ragged = problem->starts.is_present;
    if (positions == NULL) {
        return cache->key_lengths.is_present
                   ? ATTN_OK
                   : attni_fail(ATTN_ERROR_NULL,
                                "kv.lengths: expected lengths without positions, got NULL");
    }
    attni_axis axes[ATTN_MAX_RANK];
    int64_t strides[ATTN_MAX_RANK] = {0};
    int32_t count = 0;
    for (; !is_ragged && count < cache->batch_rank; ++count) {
        axes[count] = (attni_axis){NULL, cache->batch_shape[count]};
    }
    axes[count] = (attni_axis){is_ragged ? "total" : "L", problem->num_rows};
    ATTNI_TRY(attni_check_tensor("positions", positions, ATTNI_DATA_REQUIRED));
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

static attn_status check_place(const attni_append_problem *problem,
                               const attni_append_sequence *sequence, int64_t row) {
    const attni_pages *pages = &problem->cache.pages;
    const int64_t place = attni_append_place(problem, sequence, row);
    const long long batch = (long long)sequence->cache.batch;
    if (place < 0 && !problem->positions.is_present) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "kv.lengths: expected %lld new rows and more, which they count, got %lld "
                          "of sequence %lld",
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
               : attni_check_page(&problem->cache, &sequence->cache, place / pages->rows);
}

static bool stores_elements(const attni_append_problem *problem) {
    const attni_new_rows *keys = &problem->parts[ATTNI_NEW_KEYS];
    const attni_new_rows *values = &problem->parts[ATTNI_NEW_VALUES];
    return (keys->heads > 0 && keys->features > 0) || (values->heads > 0 && values->features > 0);
}

static attn_status check_places(const attni_append_problem *problem) {
    for (int64_t batch = 0; batch < problem->cache.num_batches; ++batch) {
        const attni_append_sequence sequence = attni_append_sequence_of(problem, batch);
        for (int64_t row = 0; row < sequence.rows.end - sequence.rows.begin; ++row) {
            ATTNI_TRY(check_place(problem, &sequence, row));
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
    problem->stores_elements = stores_elements(problem);
    return problem->stores_elements ? check_places(problem) : ATTN_OK;
}

attn_status attni_append_check(const attn_kv *kv, const attn_tensor *key, const attn_tensor *value,
                               const attn_kv_append_params *params, attni_append_problem *problem) {
    attni_input_views inputs;
    attn_kv_append_params known;
    *problem = (attni_append_problem){.num_rows = ATTNI_ANY_LENGTH};
    ATTNI_TRY(attni_struct_read("params", params,
                                ATTNI_BYTES_THROUGH(attn_kv_append_params, positions), sizeof known,
                                &known));
    ATTNI_TRY(check_cache(kv, &inputs, &problem->cache));
    if (known.starts != NULL) {
        inputs.names[ATTNI_QUERY_PLACES] = "starts";
        ATTNI_TRY(attni_take_starts("starts", known.starts, ATTNI_DATA_REQUIRED, &problem->starts,
                                    &inputs, ATTNI_QUERY_PLACES));
        ATTNI_TRY(attni_check_starts_axis(&inputs, ATTNI_QUERY_PLACES, &problem->starts,
                                          &problem->cache));
    }
    attni_new_rows *parts = problem->parts;
    ATTNI_TRY(check_part(&inputs, ATTNI_KEY, "key", key, problem, &parts[ATTNI_NEW_KEYS]));
    ATTNI_TRY(check_part(&inputs, ATTNI_VALUE, "value", value, problem, &parts[ATTNI_NEW_VALUES]));
    parts[ATTNI_NEW_KEYS].page_stride = problem->cache.pages.key_stride;
    parts[ATTNI_NEW_VALUES].page_stride = problem->cache.pages.value_stride;
    ATTNI_TRY(check_positions(known.positions, problem));
    return check_values(&inputs, problem);
}
