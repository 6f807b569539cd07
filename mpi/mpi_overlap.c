/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_overlap.c: address ranges of views, of all their axes or within one period.
 */
#include "mpi_overlap.h"

#include <stdint.h>

static bool has_elements(const attn_tensor *tensor) {
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        if (tensor->shape[axis] == 0) {
            return false;
        }
    }
    return true;
}

/* Addresses from the first byte of a view to behind the last. */
typedef struct byte_range {
    uintptr_t first, end;
} byte_range;

static int64_t step_of(const attn_tensor *tensor, int32_t axis) {
    return tensor->strides[axis] * (int64_t)attn_dtype_size_bytes(tensor->dtype);
}

/* Of the axes whose step is no multiple of `period` bytes; of all of them for 0. */
static byte_range range_within(const attn_tensor *tensor, int64_t period) {
    byte_range range = {(uintptr_t)tensor->data,
                        (uintptr_t)tensor->data + attn_dtype_size_bytes(tensor->dtype)};
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        const int64_t step = step_of(tensor, axis);
        const int64_t reach = (tensor->shape[axis] - 1) * step;
        if (period != 0 && step % period == 0) {
            continue;
        }
        range.first += reach < 0 ? (uintptr_t)reach : 0;
        range.end += reach > 0 ? (uintptr_t)reach : 0;
    }
    return range;
}

/* Both views repeat with `period` and lie beside each other within one. */
static bool apart_within(const attn_tensor *a, const attn_tensor *b, int64_t period) {
    const byte_range in_a = range_within(a, period), in_b = range_within(b, period);
    const uintptr_t length = (uintptr_t)period;
    const uintptr_t gap = (in_b.first % length + length - in_a.first % length) % length;
    return gap >= in_a.end - in_a.first && gap + (in_b.end - in_b.first) <= length;
}

bool attni_mpi_are_apart(const attn_tensor *a, const attn_tensor *b) {
    if (!has_elements(a) || !has_elements(b)) {
        return true;
    }
    const byte_range all_a = range_within(a, 0), all_b = range_within(b, 0);
    if (all_a.end <= all_b.first || all_b.end <= all_a.first) {
        return true;
    }
    for (int32_t axis = 0; axis < a->rank; ++axis) {
        const int64_t step = step_of(a, axis), period = step < 0 ? -step : step;
        if (a->shape[axis] > 1 && period > 0 && apart_within(a, b, period)) {
            return true;
        }
    }
    return false;
}

attn_tensor attni_mpi_bytes_at(const void *data, size_t bytes) {
    return (attn_tensor){.data = (void *)(uintptr_t)data,
                         .dtype = ATTN_DTYPE_BOOL,
                         .rank = 1,
                         .shape = {(int64_t)bytes},
                         .strides = {1}};
}
