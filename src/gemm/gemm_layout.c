/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_layout.c: from strides to BLAS's transpose flag and leading dimension, or "must be copied".
 * Pure arithmetic.
 */
#include "base/checked_size.h"
#include "gemm/gemm.h"

/* Contiguous along an axis of `length` with `step` between the elements of the other axis of
 * `count`. */
static bool fits(int64_t unit_stride, int64_t length, int64_t step, int64_t count) {
    const bool dense = length <= 1 || unit_stride == 1;
    const bool apart = count <= 1 || (step >= attni_max(1, length) && step <= INT32_MAX);
    return dense && apart && length <= INT32_MAX;
}

/* BLAS demands leading dimension >= length even where only one row or column exists and the stride
 * is never used. */
static int32_t leading_dimension(int64_t length, int64_t step, int64_t count) {
    return (int32_t)(count <= 1 ? attni_max(1, length) : step);
}

attni_blas_layout attni_blas_layout_of(const attni_matrix *matrix, int64_t rows, int64_t cols) {
    attni_blas_layout layout = {false, false, 1};
    if (fits(matrix->col_stride, cols, matrix->row_stride, rows)) {
        layout.readable = true;
        layout.leading_dimension = leading_dimension(cols, matrix->row_stride, rows);
    } else if (fits(matrix->row_stride, rows, matrix->col_stride, cols)) {
        layout.readable = true;
        layout.transposed = true;
        layout.leading_dimension = leading_dimension(rows, matrix->col_stride, cols);
    }
    return layout;
}
