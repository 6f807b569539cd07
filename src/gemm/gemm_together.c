/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_together.c: native products on the context's threads. The parts of all of them are dealt out
 * as one list, so that the threads are called once and the last part of one product does not keep
 * those of the next waiting.
 */
#include "gemm/gemm.h"

/* Multiply-adds that are not worth waking a thread for, some 20 microseconds. */
enum { SERIAL_WORK = 1 << 20 };

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
    return work >= SERIAL_WORK;
}

attn_status attni_gemm_native_together(attn_context *context, const attni_gemm_call *calls,
                                       int32_t count) {
    if (!attni_gemm_wants_threads(calls, count)) {
        for (int32_t i = 0; i < count; ++i) {
            attni_gemm_native(&calls[i]);
        }
        return ATTN_OK;
    }
    parts_list list = {.calls = calls};
    int64_t num_parts = 0;
    for (int32_t i = 0; i < count; ++i) {
        list.grids[i] = attni_gemm_cut(&calls[i]);
        num_parts += list.grids[i].num_parts;
    }
    return attni_parallel_for(context, num_parts, run_part, &list);
}
