/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_run.c: stores new rows, head by head of each sequence. What is read to find a place was
 * checked, but another thread may have written it since: a row that has no place now is left out.
 */
#include "cache/append_run.h"

#include "base/checked_size.h"
#include "cache/append_places.h"
#include "cache/quantize_row.h"
#include "kernels/kernel_select.h"
#include "problem/source_rows.h"
#include "tensor/strided_copy.h"

/* Elements whose storing takes as long as waking a thread. */
enum { PARALLEL_ELEMENTS = 1 << 17 };

typedef struct append_call {
    const attni_append_problem *problem;
    const attni_kernel_set *kernels;
} append_call;

/* A row between two types: by a kernel where one of them is float32 and side by side, else number
 * by number. Each rounds once. */
static void convert_row(const append_call *call, const attni_new_rows *part, attni_source_rows from,
                        attni_source_rows to) {
    const int32_t from_dtype = part->from.dtype, to_dtype = part->to.dtype;
    const int64_t count = part->features;
    if (from_dtype == to_dtype) {
        const attni_strided_matrix source = {from.data, 0, from.col_stride};
        attni_copy_matrix((attni_strided_matrix){to.data, 0, to.col_stride}, source, 1, count,
                          (size_t)part->to.element_bytes);
    } else if (from_dtype == ATTN_DTYPE_FLOAT32 && to_dtype != ATTN_DTYPE_FLOAT64 &&
               from.col_stride == 1) {
        attni_storage_kernels_of(call->kernels, to_dtype)
            ->narrow(to.data, to.col_stride, from.data, count);
    } else if (to_dtype == ATTN_DTYPE_FLOAT32 && from_dtype != ATTN_DTYPE_FLOAT64 &&
               to.col_stride == 1) {
        attni_storage_kernels_of(call->kernels, from_dtype)
            ->widen(to.data, from.data, from.col_stride, count);
    } else {
        for (int64_t i = 0; i < count; ++i) {
            attni_write_real(to.data, i * to.col_stride, to_dtype,
                             attni_read_real(from.data, i * from.col_stride, from_dtype));
        }
    }
}

static void store_row(const append_call *call, const attni_new_rows *part,
                      const attni_append_sequence *sequence, int64_t head, int64_t row,
                      int64_t place) {
    const attni_sdpa_problem *cache = &call->problem->cache;
    const attni_source_rows from = attni_operand_rows(cache, &part->from, sequence->cache.batch,
                                                      head, sequence->rows.begin + row);
    const attni_source_rows to =
        attni_sequence_rows(cache, &part->to, part->page_stride, &sequence->cache, head, place);
    if (attni_is_quantized(part->to.dtype)) {
        const attni_number_row at = attni_number_row_of(cache, &sequence->cache, head, place);
        attni_quantize_row(call->kernels, cache, part, &from, &to, &at);
    } else {
        convert_row(call, part, from, to);
    }
}

/* New rows of one head of a sequence. */
static void store_head(const append_call *call, const attni_new_rows *part,
                       const attni_append_sequence *sequence, int64_t head) {
    const attni_append_problem *problem = call->problem;
    const int64_t count = sequence->rows.end - sequence->rows.begin;
    for (int64_t row = 0; row < count; ++row) {
        const int64_t place = attni_append_place(problem, sequence, row);
        if (place >= 0 && place < sequence->room) {
            store_row(call, part, sequence, head, row, place);
        }
    }
}

/* Item `index` is a head of key, or behind those one of value, of a sequence. */
static void store_item(void *data, int64_t index) {
    const append_call *call = data;
    const attni_new_rows *parts = call->problem->parts;
    const int64_t key_heads = parts[ATTNI_NEW_KEYS].heads;
    const int64_t heads = key_heads + parts[ATTNI_NEW_VALUES].heads;
    const int64_t head = index % heads;
    const attni_append_sequence sequence = attni_append_sequence_of(call->problem, index / heads);
    if (head < key_heads) {
        store_head(call, &parts[ATTNI_NEW_KEYS], &sequence, head);
    } else {
        store_head(call, &parts[ATTNI_NEW_VALUES], &sequence, head - key_heads);
    }
}

attn_status attni_append_run(attn_context *context, const attni_append_problem *problem) {
    if (!problem->stores_elements || problem->num_rows == 0) {
        return ATTN_OK;
    }
    append_call call = {problem, attni_context_kernels(context)};
    const attni_new_rows *keys = &problem->parts[ATTNI_NEW_KEYS];
    const attni_new_rows *values = &problem->parts[ATTNI_NEW_VALUES];
    const int64_t sequences = problem->cache.num_batches;
    const int64_t count = sequences * (keys->heads + values->heads);
    const double elements = (double)problem->num_rows *
                            ((double)keys->heads * (double)keys->features +
                             (double)values->heads * (double)values->features) *
                            (problem->starts.is_present ? 1 : (double)sequences);
    if (elements >= PARALLEL_ELEMENTS) {
        /* From here on the cache is written, and a failure could not leave it untouched. */
        ATTNI_TRY(attni_start_threads(context));
        return attni_parallel_for(context, count, store_item, &call);
    }
    for (int64_t index = 0; index < count; ++index) {
        store_item(&call, index);
    }
    return ATTN_OK;
}
