/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_together.c: native products on the context's threads. The parts of all of them are dealt out
 * as one list, so that the threads are called once and the last part of one product does not keep
 * those of the next waiting. Before that, a B that many rows read is put into strips, if there is
 * room.
 */
#include "base/checked_size.h"
#include "gemm/gemm.h"
#include "gemm/strips.h"

enum {
    STRIPS_ROWS = 192 /* up to so many rows B is read once or twice however it is cut */
};

typedef struct parts_list {
    const attni_gemm_call *calls;
    attni_gemm_grid grids[ATTNI_GEMM_MOST_TOGETHER];
} parts_list;

static void run_part(void *data, int64_t index) {
    const parts_list *list = data;
    int32_t i = 0;
    while (index >= list->grids[i].num_parts) {
        index -= list->grids[i++].num_parts;
    }
    const attni_gemm_part part = attni_gemm_part_of(&list->calls[i], &list->grids[i], index);
    attni_gemm_native_part(&list->calls[i], &part);
}

bool attni_gemm_wants_threads(const attni_gemm_call *calls, int32_t count) {
    double work = 0;
    for (int32_t i = 0; i < count; ++i) {
        work += attni_gemm_work(&calls[i]);
    }
    return work >= ATTNI_SERIAL_WORK;
}

/* ---- strips ---- */

int64_t attni_gemm_strips_bytes(const attni_gemm_call *call) {
    int64_t rows;
    if (attni_multiply(call->batch, call->rows, &rows) && rows <= STRIPS_ROWS) {
        return 0;
    }
    int64_t bytes;
    const int64_t cols = attni_strips_round_up(attni_gemm_b_dtype(call), call->cols);
    return attni_multiply(cols * (int64_t)attn_dtype_size_bytes(attni_gemm_b_dtype(call)),
                          call->inner, &bytes)
               ? bytes
               : INT64_MAX;
}

static bool wants_strips(const attni_gemm_call *call) {
    return call->strips == NULL && call->strips_memory != NULL;
}

static int64_t count_strips(const attni_gemm_call *call) {
    return wants_strips(call)
               ? attni_divide_up(call->cols, attni_strip_cols(attni_gemm_b_dtype(call)))
               : 0;
}

/* Strip `index` of those that all calls want. */
static void pack_strip(void *data, int64_t index) {
    const attni_gemm_call *call = ((const parts_list *)data)->calls;
    for (; index >= count_strips(call); ++call) {
        index -= count_strips(call);
    }
    const int64_t element = (int64_t)attn_dtype_size_bytes(attni_gemm_b_dtype(call));
    const int64_t width = attni_strip_cols(attni_gemm_b_dtype(call));
    call->kernels->pack(call->strips_memory + index * width * call->inner * element,
                        call->b.data + index * width * call->b.col_stride * element,
                        call->b.row_stride, call->b.col_stride, call->inner,
                        attni_min(width, call->cols - index * width));
}

static attn_status pack_all(attn_context *context, attni_gemm_call *calls, int32_t count) {
    parts_list list = {.calls = calls};
    int64_t num_strips = 0;
    for (int32_t i = 0; i < count; ++i) {
        num_strips += count_strips(&calls[i]);
    }
    ATTNI_TRY(attni_parallel_for(context, num_strips, pack_strip, &list));
    for (int32_t i = 0; i < count; ++i) {
        calls[i].strips = wants_strips(&calls[i]) ? calls[i].strips_memory : calls[i].strips;
    }
    return ATTN_OK;
}

attn_status attni_gemm_native_together(attn_context *context, attni_gemm_call *calls,
                                       int32_t count) {
    if (!attni_gemm_wants_threads(calls, count)) {
        for (int32_t i = 0; i < count; ++i) {
            attni_gemm_native(&calls[i]);
        }
        return ATTN_OK;
    }
    ATTNI_TRY(pack_all(context, calls, count));
    parts_list list = {.calls = calls};
    int64_t num_parts = 0;
    for (int32_t i = 0; i < count; ++i) {
        list.grids[i] = attni_gemm_cut(&calls[i]);
        num_parts += list.grids[i].num_parts;
    }
    return attni_parallel_for(context, num_parts, run_part, &list);
}
