/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_copy.c: copies between views, in runs as long as both lie densely.
 */
#include "mpi_copy.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

attn_tensor attni_mpi_slice(const attn_tensor *tensor, int32_t axis, int64_t first, int64_t count) {
    attn_tensor view = *tensor;
    const int32_t at = tensor->rank + axis;
    view.shape[at] = count;
    if (view.data != NULL && count > 0) {
        view.data = (char *)view.data +
                    first * tensor->strides[at] * (int64_t)attn_dtype_size_bytes(tensor->dtype);
    }
    return view;
}

/* How many elements of the last axes, num_outer before them, lie side by side in both views. */
static int64_t dense_run(const attn_tensor *from, const attn_tensor *to, int32_t *num_outer) {
    int64_t run = 1;
    int32_t axis = from->rank;
    while (axis > 0) {
        const int64_t length = from->shape[axis - 1];
        const bool is_dense = from->strides[axis - 1] == run && to->strides[axis - 1] == run;
        if (length != 1 && !is_dense) {
            break;
        }
        run *= length;
        --axis;
    }
    *num_outer = axis;
    return run;
}

void attni_mpi_copy(const attn_tensor *from, const attn_tensor *to) {
    const int64_t element_bytes = (int64_t)attn_dtype_size_bytes(from->dtype);
    int64_t index[ATTN_MAX_RANK] = {0};
    int32_t num_outer;
    const int64_t run = dense_run(from, to, &num_outer);
    const char *source = from->data;
    char *target = to->data;
    for (int32_t axis = 0; axis < from->rank; ++axis) {
        if (from->shape[axis] == 0) {
            return;
        }
    }
    for (int32_t axis = 0; axis >= 0;) {
        memcpy(target, source, (size_t)(run * element_bytes));
        /* To the next run: the last axis that does not end goes on, those behind it begin anew. */
        for (axis = num_outer - 1; axis >= 0; --axis) {
            source += from->strides[axis] * element_bytes;
            target += to->strides[axis] * element_bytes;
            if (++index[axis] < from->shape[axis]) {
                break;
            }
            source -= from->shape[axis] * from->strides[axis] * element_bytes;
            target -= from->shape[axis] * to->strides[axis] * element_bytes;
            index[axis] = 0;
        }
    }
}
