/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_copy.c: copies and sums between views, in runs as long as both lie densely.
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

void attni_mpi_add_flat(const void *from, int32_t dtype, int64_t bytes, void *to) {
    if (dtype == ATTN_DTYPE_FLOAT64) {
        const double *const added = from;
        double *const sums = to;
        for (int64_t i = 0; i < bytes / (int64_t)sizeof(double); ++i) {
            sums[i] += added[i];
        }
        return;
    }
    const float *const added = from;
    float *const sums = to;
    for (int64_t i = 0; i < bytes / (int64_t)sizeof(float); ++i) {
        sums[i] += added[i];
    }
}

/* What becomes of a run of elements. */
typedef void (*run_fn)(const void *from, int32_t dtype, int64_t bytes, void *to);

static void copy_flat(const void *from, int32_t dtype, int64_t bytes, void *to) {
    (void)dtype;
    memcpy(to, from, (size_t)bytes);
}

static void visit_runs(const attn_tensor *from, const attn_tensor *to, run_fn visit) {
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
        visit(source, from->dtype, run * element_bytes, target);
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

void attni_mpi_copy(const attn_tensor *from, const attn_tensor *to) {
    visit_runs(from, to, copy_flat);
}

void attni_mpi_add(const attn_tensor *from, const attn_tensor *to) {
    visit_runs(from, to, attni_mpi_add_flat);
}
