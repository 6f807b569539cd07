/* SPDX-License-Identifier: BSD-3-Clause
 *
 * strided_copy.c: element-wise copies between layouts. memcpy of one element is how an unaligned
 * load or store is written in C.
 */
#include "tensor/strided_copy.h"

#include <stdbool.h>
#include <string.h>

#include "tensor/element.h"

/* Rows are copied in strips so that a transposing copy reuses each cache line it touches. */
enum { STRIP = 16 };

static void copy_row_8(char *to, int64_t to_step, const char *from, int64_t from_step,
                       int64_t cols) {
    for (int64_t c = 0; c < cols; ++c) {
        memcpy(to + c * to_step, from + c * from_step, 8);
    }
}

static void copy_row_1(char *to, int64_t to_step, const char *from, int64_t from_step,
                       int64_t cols) {
    for (int64_t c = 0; c < cols; ++c) {
        to[c * to_step] = from[c * from_step];
    }
}

static void copy_row_2(char *to, int64_t to_step, const char *from, int64_t from_step,
                       int64_t cols) {
    for (int64_t c = 0; c < cols; ++c) {
        memcpy(to + c * to_step, from + c * from_step, 2);
    }
}

static void copy_row_4(char *to, int64_t to_step, const char *from, int64_t from_step,
                       int64_t cols) {
    for (int64_t c = 0; c < cols; ++c) {
        memcpy(to + c * to_step, from + c * from_step, 4);
    }
}

void attni_copy_matrix(attni_strided_matrix to, attni_strided_matrix from, int64_t rows,
                       int64_t cols, size_t element_bytes) {
    const int64_t size = (int64_t)element_bytes;
    const bool dense = to.col_stride == 1 && from.col_stride == 1;
    const int64_t width = dense ? cols : STRIP;
    for (int64_t first = 0; first < cols; first += width) {
        const int64_t count = cols - first < width ? cols - first : width;
        for (int64_t r = 0; r < rows; ++r) {
            char *target = to.data + (r * to.row_stride + first * to.col_stride) * size;
            const char *source = from.data + (r * from.row_stride + first * from.col_stride) * size;
            if (dense) {
                memcpy(target, source, (size_t)count * element_bytes);
            } else if (element_bytes == 4) {
                copy_row_4(target, to.col_stride * size, source, from.col_stride * size, count);
            } else if (element_bytes == 2) {
                copy_row_2(target, to.col_stride * size, source, from.col_stride * size, count);
            } else if (element_bytes == 1) {
                copy_row_1(target, to.col_stride * size, source, from.col_stride * size, count);
            } else {
                copy_row_8(target, to.col_stride * size, source, from.col_stride * size, count);
            }
        }
    }
}

void attni_copy_tensor(const attn_tensor *to, const attn_tensor *from) {
    int64_t index[ATTN_MAX_RANK] = {0};
    int64_t to_offset = 0;
    int64_t from_offset = 0;
    for (int32_t axis = 0; axis < to->rank; ++axis) {
        if (to->shape[axis] == 0) {
            return;
        }
    }
    for (;;) {
        attni_write_real(to->data, to_offset, to->dtype,
                         attni_read_real(from->data, from_offset, from->dtype));
        int32_t axis = to->rank - 1;
        for (; axis >= 0; --axis) {
            to_offset += to->strides[axis];
            from_offset += from->strides[axis];
            if (++index[axis] < to->shape[axis]) {
                break;
            }
            to_offset -= index[axis] * to->strides[axis];
            from_offset -= index[axis] * from->strides[axis];
            index[axis] = 0;
        }
        if (axis < 0) {
            return;
        }
    }
}
