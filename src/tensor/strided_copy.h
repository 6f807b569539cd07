/* SPDX-License-Identifier: BSD-3-Clause
 *
 * strided_copy.h: moves a matrix between two layouts, at any alignment; and converts between the
 * float types.
 */
#ifndef ATTNI_TENSOR_STRIDED_COPY_H
#define ATTNI_TENSOR_STRIDED_COPY_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

/* A matrix somewhere in memory: element (r, c) at data + (r * row_stride + c * col_stride) *
 * element size. */
typedef struct attni_strided_matrix {
    char *data;
    int64_t row_stride;
    int64_t col_stride;
} attni_strided_matrix;

/* to(r, c) = from(r, c) for rows x cols elements of element_bytes (1, 2, 4 or 8). The two must not
 * overlap. */
void attni_copy_matrix(attni_strided_matrix to, attni_strided_matrix from, int64_t rows,
                       int64_t cols, size_t element_bytes);

/* to = from for float32 or float64 tensors of equal shape, converting where the dtypes differ. */
void attni_copy_tensor(const attn_tensor *to, const attn_tensor *from);

#endif
