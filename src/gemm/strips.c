/* SPDX-License-Identifier: BSD-3-Clause
 *
 * strips.c: matrices into strips and back; a strip is a view with strides (1, columns of a strip).
 */
#include "gemm/strips.h"

#include <string.h>

#include "base/checked_size.h"
#include "tensor/strided_copy.h"
#include "tensor/tensor_check.h"

int64_t attni_strip_cols(int32_t dtype) {
    return ATTNI_STRIP_BYTES / (int64_t)attn_dtype_size_bytes(attni_score_dtype(dtype));
}

int64_t attni_strips_round_up(int32_t dtype, int64_t cols) {
    const int64_t width = attni_strip_cols(dtype);
    return attni_divide_up(cols, width) * width;
}

int64_t attni_strips_offset(int32_t dtype, int64_t inner, int64_t k, int64_t col) {
    const int64_t width = attni_strip_cols(dtype);
    return (col / width * inner + k) * width + col % width;
}

/* The rows of a matrix that are the columns of its strip from `first` on. */
static attn_tensor rows_of_strip(const attn_tensor *matrix, int64_t first, int64_t width) {
    attn_tensor rows = *matrix;
    rows.shape[0] = attni_min(width, matrix->shape[0] - first);
    rows.data = (char *)matrix->data +
                first * matrix->strides[0] * (int64_t)attn_dtype_size_bytes(matrix->dtype);
    return rows;
}

/* The same rows in the strip. */
static attn_tensor strip_view(const char *strips, int32_t dtype, const attn_tensor *rows,
                              int64_t first) {
    return (attn_tensor){
        .data = (char *)(uintptr_t)strips +
                first * rows->shape[1] * (int64_t)attn_dtype_size_bytes(dtype),
        .dtype = dtype,
        .rank = 2,
        .shape = {rows->shape[0], rows->shape[1]},
        .strides = {1, attni_strip_cols(dtype)},
    };
}

static attni_strided_matrix matrix_of(const attn_tensor *view) {
    return (attni_strided_matrix){view->data, view->strides[0], view->strides[1]};
}

static void copy(const attn_tensor *to, const attn_tensor *from) {
    if (to->dtype == from->dtype) {
        attni_copy_matrix(matrix_of(to), matrix_of(from), to->shape[0], to->shape[1],
                          attn_dtype_size_bytes(to->dtype));
    } else {
        attni_copy_tensor(to, from);
    }
}

void attni_strips_pack(char *strips, int32_t dtype, const attn_tensor *matrix) {
    const int64_t width = attni_strip_cols(dtype);
    for (int64_t first = 0; first < matrix->shape[0]; first += width) {
        const attn_tensor rows = rows_of_strip(matrix, first, width);
        const attn_tensor strip = strip_view(strips, dtype, &rows, first);
        if (rows.shape[0] < width) {
            memset(strip.data, 0, (size_t)(rows.shape[1] * width) * attn_dtype_size_bytes(dtype));
        }
        copy(&strip, &rows);
    }
}

void attni_strips_unpack(const attn_tensor *matrix, int32_t dtype, const char *strips) {
    const int64_t width = attni_strip_cols(dtype);
    for (int64_t first = 0; first < matrix->shape[0]; first += width) {
        const attn_tensor rows = rows_of_strip(matrix, first, width);
        const attn_tensor strip = strip_view(strips, dtype, &rows, first);
        copy(&rows, &strip);
    }
}

void attni_strips_turn(const attni_product_kernels *kernels, int32_t dtype, char *to,
                       const char *from, int64_t inner, int64_t cols, int64_t index) {
    const int64_t width = attni_strip_cols(dtype);
    const int64_t element = (int64_t)attn_dtype_size_bytes(dtype);
    for (int64_t first = 0; first < cols; first += width) {
        const int64_t block = first * inner + index * width * width;
        kernels->pack(to + (index * width * cols + first * width) * element, from + block * element,
                      1, width, attni_min(width, cols - first),
                      attni_min(width, inner - index * width));
    }
}
