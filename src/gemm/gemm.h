/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm.h: matrix products on views: C = alpha A B + beta C, for a batch of equal shapes.
 *
 * A view that BLAS cannot read in place (no unit stride along rows or columns, a stride that
 * repeats or reverses) is copied into scratch memory first, and only then. Sizes beyond BLAS's int
 * are cut into pieces. Elements that are not aligned to their own size go through the native
 * product, which needs no scratch, because a plan's memory may not depend on addresses. Arguments
 * are valid: this layer cannot fail, except that the BLAS itself may be unusable, which
 * attni_gemm_check finds out before a plan is run.
 */
#ifndef ATTNI_GEMM_GEMM_H
#define ATTNI_GEMM_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/workspace.h"

/* Element (b, r, c) at data + (b * batch_stride + r * row_stride + c * col_stride) * element size.
 */
typedef struct attni_matrix {
    char *data;
    int64_t batch_stride;
    int64_t row_stride;
    int64_t col_stride;
} attni_matrix;

/* One batched product. A is rows x inner, B inner x cols, C rows x cols. beta is 0 (C is only
 * written) or 1. */
typedef struct attni_gemm_call {
    int32_t backend; /* ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE */
    int32_t dtype;   /* float32 or float64 */
    int64_t batch;
    int64_t rows;
    int64_t cols;
    int64_t inner;
    double alpha;
    double beta;
    attni_matrix a;
    attni_matrix b;
    attni_matrix c;
} attni_gemm_call;

/* ATTN_ERROR_BLAS if `backend` is a BLAS that cannot be used. */
attn_status attni_gemm_check(int32_t backend);

/* Adds the scratch memory a call needs to a layout and returns its offset. It depends on sizes and
 * strides only. */
size_t attni_gemm_add_scratch(const attni_gemm_call *call, attni_layout *layout);

/* Computes the product with the scratch memory that attni_gemm_add_scratch set aside for an equal
 * call. */
void attni_gemm_run(const attni_gemm_call *call, char *scratch);

/* The two above for a BLAS whose sizes end at `limit` instead of INT32_MAX, so that tests can see
 * large sizes being cut. */
size_t attni_gemm_add_scratch_limited(const attni_gemm_call *call, int64_t limit,
                                      attni_layout *layout);
void attni_gemm_run_limited(const attni_gemm_call *call, int64_t limit, char *scratch);

/* gemm_layout.c: how BLAS would read a matrix in row-major order. */
typedef struct attni_blas_layout {
    bool readable;             /* false: the matrix must be copied */
    bool transposed;           /* columns, not rows, are contiguous */
    int32_t leading_dimension; /* >= 1 */
} attni_blas_layout;

attni_blas_layout attni_blas_layout_of(const attni_matrix *matrix, int64_t rows, int64_t cols);

/* gemm_blas.c or gemm_no_blas.c: one product (no batch) of readable views, C not transposed, sizes
 * 1 to INT32_MAX. */
void attni_gemm_blas(const attni_gemm_call *call);

/* gemm_native.c: one product (no batch) in plain C, any strides and alignment; inner may be 0. */
void attni_gemm_native(const attni_gemm_call *call);

#endif
