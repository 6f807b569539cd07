/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key_source.c: finds query, key and value, and what says where their sequences are.
 */
#include "problem/key_source.h"

#include <stddef.h>
#include <string.h>

#include "base/checked_size.h"
#include "problem/block_numbers.h"
#include "tensor/element.h"

static attn_status check_input(const char *name, const attn_tensor *tensor, int32_t lowest_rank,
                               int32_t highest_rank, attni_data_rule data_rule) {
    ATTNI_TRY(attni_check_tensor(name, tensor, data_rule));
    ATTNI_TRY(attni_check_rank(name, tensor, lowest_rank, highest_rank));
    return attni_check_float(name, tensor);
}

void attni_place_operand(const attn_tensor *tensor, attni_operand *operand) {
    operand->data = tensor->data;
    operand->element_bytes = (int64_t)attn_dtype_size_bytes(tensor->dtype);
    operand->dtype = tensor->dtype;
    operand->is_present = true;
}

/* A view for broadcasting, of the first `count` axes of `indices` less `surplus` in the last. */
static attn_tensor batch_view(const attn_tensor *indices, int32_t count, int64_t surplus) {
    attn_tensor view = {.rank = count + 3};
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        view.shape[axis] = axis < count ? indices->shape[axis] : 1;
    }
    if (count > 0) {
        view.shape[count - 1] -= surplus;
    }
    return view;
}

static void set_view(attni_input_views *inputs, int32_t which, attn_tensor view) {
    inputs->made[which] = view;
    inputs->views[which] = &inputs->made[which];
}

static void set_given(attni_input_views *inputs, int32_t which, const char *name,
                      const attn_tensor *tensor) {
    inputs->names[which] = name;
    inputs->given[which] = tensor;
    inputs->views[which] = tensor;
}

/* Starts of B sequences, and the end of the last: shape (B + 1). */
attn_status attni_take_starts(const char *name, const attn_tensor *starts,
                              attni_data_rule data_rule, attni_operand *operand,
                              attni_input_views *inputs, int32_t which) {
    ATTNI_TRY(attni_check_tensor(name, starts, data_rule));
    ATTNI_TRY(attni_check_index(name, starts));
    ATTNI_TRY(attni_check_rank(name, starts, 1, 1));
    if (starts->shape[0] == 0) {
        return attni_fail(ATTN_ERROR_SHAPE, "%s: expected shape (B + 1), got (0)", name);
    }
    attni_place_operand(starts, operand);
    operand->strides[0] = attni_stride(starts, 0);
    set_given(inputs, which, name, starts);
    set_view(inputs, which, batch_view(starts, 1, 1));
    inputs->are_starts[which] = true;
    return ATTN_OK;
}

/* One page's view as that of a sequence of `rows`, whose rows do not lie so: only the first page's
 * do. */
static attn_tensor view_of_sequence(const attn_tensor *pages, int64_t rows) {
    attn_tensor view = {.data = pages->data, .dtype = pages->dtype, .rank = 3};
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        view.shape[axis] = pages->shape[axis + 1];
        view.strides[axis] = attni_stride(pages, axis + 1);
    }
    view.shape[1] = rows;
    return view;
}

static attn_status check_pages(const attni_kv_names *names, const attn_kv *kv) {
    for (int32_t axis = 0; axis <= 2; axis += 2) {
        if (kv->key->shape[axis] != kv->value->shape[axis]) {
            char text[ATTNI_SHAPE_TEXT_BYTES];
            return attni_fail(ATTN_ERROR_SHAPE,
                              "%s: expected shape (pages=%lld, Hv, page=%lld, Ev) with as many "
                              "pages and rows as %s, got %s",
                              names->of[ATTNI_KV_VALUE], (long long)kv->key->shape[0],
                              (long long)kv->key->shape[2], names->of[ATTNI_KV_KEY],
                              attni_shape_text(text, 4, kv->value->shape));
        }
    }
    if (kv->key->shape[2] == 0) {
        return attni_fail(ATTN_ERROR_SHAPE, "%s: expected pages of 1 row or more, got 0",
                          names->of[ATTNI_KV_KEY]);
    }
    return ATTN_OK;
}

static attn_status take_pages(const attn_kv *kv, attni_data_rule data_rule,
                              attni_input_views *inputs, attni_sdpa_problem *problem) {
    attni_pages *pages = &problem->pages;
    const attn_tensor *table = kv->page_table;
    const char *table_name = inputs->kv_names->of[ATTNI_KV_PAGE_TABLE];
    const bool is_flat = kv->page_starts != NULL;
    ATTNI_TRY(check_pages(inputs->kv_names, kv));
    ATTNI_TRY(attni_check_tensor(table_name, table, data_rule));
    ATTNI_TRY(attni_check_index(table_name, table));
    ATTNI_TRY(attni_check_rank(table_name, table, 1, is_flat ? 1 : ATTNI_MAX_BATCH_AXES + 1));
    pages->num_entries = table->shape[table->rank - 1];
    pages->count = kv->key->shape[0];
    pages->rows = kv->key->shape[2];
    pages->key_stride = attni_stride(kv->key, 0);
    pages->value_stride = attni_stride(kv->value, 0);
    attni_place_operand(table, &pages->table);
    if (!attni_multiply(pages->num_entries, pages->rows, &problem->key_rows)) {
        return attni_fail(ATTN_ERROR_OVERFLOW, "%s: %lld pages of %lld rows exceed 2^63",
                          table_name, (long long)pages->num_entries, (long long)pages->rows);
    }
    set_view(inputs, ATTNI_KEY, view_of_sequence(inputs->views[ATTNI_KEY], problem->key_rows));
    set_view(inputs, ATTNI_VALUE, view_of_sequence(inputs->views[ATTNI_VALUE], problem->key_rows));
    if (is_flat) {
        return attni_take_starts(inputs->kv_names->of[ATTNI_KV_PAGE_STARTS], kv->page_starts,
                                 data_rule, &pages->starts, inputs, ATTNI_KEY_PLACES);
    }
    set_given(inputs, ATTNI_KEY_PLACES, table_name, table);
    set_view(inputs, ATTNI_KEY_PLACES, batch_view(table, table->rank - 1, 0));
    return ATTN_OK;
}

static attn_status check_alone(const attni_sdpa_request *request) {
    const char *name = request->key != NULL                   ? "key"
                       : request->value != NULL               ? "value"
                       : request->params->key_lengths != NULL ? "key_lengths"
                                                              : NULL;
    if (name != NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL beside kv, which has its own", name);
    }
    return ATTN_OK;
}

static attn_status check_places(const attni_kv_names *names, const attn_kv *kv) {
    if (kv->starts != NULL && kv->page_table != NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL beside %s",
                          names->of[ATTNI_KV_STARTS], names->of[ATTNI_KV_PAGE_TABLE]);
    }
    if (kv->page_starts != NULL && kv->page_table == NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL without %s",
                          names->of[ATTNI_KV_PAGE_STARTS], names->of[ATTNI_KV_PAGE_TABLE]);
    }
    return ATTN_OK;
}

typedef struct cached_input {
    attni_argument tensor;
    attni_argument scale;
    attni_argument zero;
} cached_input;

/* Key or value of kv, of any type that a cache may hold. */
static attn_status take_cached(const cached_input *cached, int32_t which, int32_t lowest_rank,
                               int32_t highest_rank, attni_data_rule data_rule,
                               attni_input_views *inputs) {
    const attn_tensor *tensor = cached->tensor.tensor;
    const char *name = cached->tensor.name;
    ATTNI_TRY(attni_check_tensor(name, tensor, data_rule));
    ATTNI_TRY(attni_check_rank(name, tensor, lowest_rank, highest_rank));
    ATTNI_TRY(attni_check_cached(name, tensor));
    set_given(inputs, which, name, tensor);
    if (attn_dtype_values(tensor->dtype) > 1) {
        ATTNI_TRY(attni_count_values(name, tensor, &inputs->made[which]));
        inputs->views[which] = &inputs->made[which];
    }
    inputs->scales[which] = cached->scale.tensor;
    inputs->zeros[which] = cached->zero.tensor;
    ATTNI_TRY(attni_check_block_numbers(cached->scale.name, cached->scale.tensor, name,
                                        inputs->views[which], data_rule));
    return attni_check_block_numbers(cached->zero.name, cached->zero.tensor, name,
                                     inputs->views[which], data_rule);
}

attn_status attni_read_kv(const attn_kv *given, const attni_kv_names *names,
                          attni_data_rule data_rule, attni_input_views *inputs,
                          attni_sdpa_problem *problem) {
    attn_kv kv;
    attni_argument tensors[ATTNI_KV_TENSORS];
    ATTNI_TRY(attni_kv_read(names, given, &kv));
    ATTNI_TRY(check_places(names, &kv));
    inputs->kv_names = names;
    attni_kv_list(names, &kv, tensors);
    const int32_t lowest = kv.page_table != NULL ? 4 : kv.starts != NULL ? 3 : 2;
    const int32_t highest = lowest > 2 ? lowest : ATTN_MAX_RANK;
    const cached_input key = {tensors[ATTNI_KV_KEY], tensors[ATTNI_KV_KEY_SCALE],
                              tensors[ATTNI_KV_KEY_ZERO]};
    const cached_input value = {tensors[ATTNI_KV_VALUE], tensors[ATTNI_KV_VALUE_SCALE],
                                tensors[ATTNI_KV_VALUE_ZERO]};
    ATTNI_TRY(take_cached(&key, ATTNI_KEY, lowest, highest, data_rule, inputs));
    ATTNI_TRY(take_cached(&value, ATTNI_VALUE, lowest, highest, data_rule, inputs));
    inputs->lengths_name = names->of[ATTNI_KV_LENGTHS];
    inputs->key_lengths = kv.lengths;
    inputs->page_table = kv.page_table;
    if (kv.page_table != NULL) {
        inputs->key_rows_name = "page";
        return take_pages(&kv, data_rule, inputs, problem);
    }
    if (kv.starts == NULL) {
        return ATTN_OK;
    }
    inputs->key_rows_name = "total";
    return attni_take_starts(names->of[ATTNI_KV_STARTS], kv.starts, data_rule, &problem->key_starts,
                             inputs, ATTNI_KEY_PLACES);
}

/* Query rows of all sequences, one behind the other. */
static attn_status take_query_starts(const attni_sdpa_request *request, attni_input_views *inputs,
                                     attni_sdpa_problem *problem) {
    if (request->params->query_starts == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_check_rank("query", request->query, 3, 3));
    return attni_take_starts("query_starts", request->params->query_starts, request->option_data,
                             &problem->query_starts, inputs, ATTNI_QUERY_PLACES);
}

/* All but the views that are made, which would take as long as all checks of a small call. */
void attni_start_inputs(attni_input_views *inputs) {
    memset(inputs, 0, offsetof(attni_input_views, made));
}

attn_status attni_read_inputs(const attni_sdpa_request *request, attni_input_views *inputs,
                              attni_sdpa_problem *problem) {
    attni_start_inputs(inputs);
    inputs->key_rows_name = "S";
    inputs->key_lengths = request->params->key_lengths;
    inputs->lengths_name = "key_lengths";
    ATTNI_TRY(check_input("query", request->query, 2, ATTN_MAX_RANK, request->tensor_data));
    set_given(inputs, ATTNI_QUERY, "query", request->query);
    ATTNI_TRY(take_query_starts(request, inputs, problem));
    if (request->params->kv != NULL) {
        ATTNI_TRY(check_alone(request));
        return attni_read_kv(request->params->kv, request->kv_names, request->option_data, inputs,
                             problem);
    }
    ATTNI_TRY(check_input("key", request->key, 2, ATTN_MAX_RANK, request->tensor_data));
    ATTNI_TRY(check_input("value", request->value, 2, ATTN_MAX_RANK, request->tensor_data));
    set_given(inputs, ATTNI_KEY, "key", request->key);
    set_given(inputs, ATTNI_VALUE, "value", request->value);
    return ATTN_OK;
}

attn_status attni_fail_starts(const attni_input_views *inputs, int32_t which, int64_t num_batches) {
    return attni_fail(ATTN_ERROR_SHAPE, "%s: expected shape (B + 1 = %lld), got (%lld)",
                      inputs->names[which], (long long)num_batches + 1,
                      (long long)inputs->given[which]->shape[0]);
}

attn_status attni_check_starts_axis(const attni_input_views *inputs, int32_t which,
                                    const attni_operand *starts,
                                    const attni_sdpa_problem *problem) {
    if (!starts->is_present) {
        return ATTN_OK;
    }
    const attn_tensor *view = inputs->views[which];
    if (problem->batch_rank != 1) {
        return attni_fail(ATTN_ERROR_SHAPE, "%s: expected one batch axis beside it, got %d",
                          inputs->names[which], (int)problem->batch_rank);
    }
    if (view->shape[0] != problem->batch_shape[0]) {
        return attni_fail_starts(inputs, which, problem->batch_shape[0]);
    }
    return ATTN_OK;
}

static void place_numbers(const attni_input_views *inputs, int32_t which,
                          const attni_sdpa_problem *problem, attni_quantization *quantization) {
    const bool is_in_pages = problem->pages.rows > 0;
    attni_place_block_numbers(inputs->scales[which], inputs->given[which], problem->batch_rank,
                              is_in_pages, &quantization->scale);
    attni_place_block_numbers(inputs->zeros[which], inputs->given[which], problem->batch_rank,
                              is_in_pages, &quantization->zero);
}

void attni_place_kv(const attni_input_views *inputs, attni_sdpa_problem *problem) {
    const attn_tensor *table = inputs->page_table;
    const int32_t rank = table != NULL ? table->rank : 0;
    for (int32_t axis = 0; axis < rank; ++axis) {
        problem->pages.table.strides[problem->batch_rank + 1 - rank + axis] =
            attni_stride(table, axis);
    }
    place_numbers(inputs, ATTNI_KEY, problem, &problem->key_quantization);
    place_numbers(inputs, ATTNI_VALUE, problem, &problem->value_quantization);
}

attn_status attni_place_sequences(const attni_input_views *inputs, attni_sdpa_problem *problem) {
    ATTNI_TRY(attni_check_starts_axis(inputs, ATTNI_KEY_PLACES, &problem->key_starts, problem));
    ATTNI_TRY(attni_check_starts_axis(inputs, ATTNI_KEY_PLACES, &problem->pages.starts, problem));
    ATTNI_TRY(attni_check_starts_axis(inputs, ATTNI_QUERY_PLACES, &problem->query_starts, problem));
    attni_place_kv(inputs, problem);
    return ATTN_OK;
}

attn_status attni_check_batch_indices(const char *name, const attn_tensor *tensor,
                                      attni_data_rule data_rule, const attni_sdpa_problem *problem,
                                      attni_operand *operand) {
    attni_axis axes[ATTNI_MAX_BATCH_AXES];
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        axes[axis] = (attni_axis){NULL, problem->batch_shape[axis]};
    }
    ATTNI_TRY(attni_check_tensor(name, tensor, data_rule));
    ATTNI_TRY(attni_check_index(name, tensor));
    ATTNI_TRY(attni_broadcast_strides(name, tensor, axes, problem->batch_rank, operand->strides));
    attni_place_operand(tensor, operand);
    return ATTN_OK;
}
