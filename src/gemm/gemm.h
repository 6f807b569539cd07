/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm.h: matrix products on views: C = alpha A B + beta C, for a batch of equal shapes.
 *
 * There are two backends. BLAS: a view that it cannot read in place (no unit stride along rows or
 * columns, a stride that repeats or reverses) is copied into scratch memory first, and only then;
 * sizes beyond its int are cut into pieces. And the library's own, "native" product, which takes
 * every view as it is and needs no scratch. Elements that are not aligned to their own size go
 * through the latter whatever the backend, because a plan's memory may not depend on addresses. So
 * do float32 products where the BLAS may stray outside its matrices, those of NaN or infinity where
 * it may lose them, and all of a forked child where it may wait for threads of the parent.
 *
 * Arguments are valid: this layer cannot fail, except that the BLAS itself may be unusable, which
 * attni_gemm_check finds out before a plan is run, and that threads may not be there.
 */
#ifndef ATTNI_GEMM_GEMM_H
#define ATTNI_GEMM_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/workspace.h"
#include "context/context.h"
#include "kernels/product_kernels.h"

/* Element (b, r, c) at data + (b * batch_stride + r * row_stride + c * col_stride) * element size.
 */
typedef struct attni_matrix {
    char *data;
    int64_t batch_stride;
    int64_t row_stride;
    int64_t col_stride;
} attni_matrix;

/* One batched product. A is rows x inner, B inner x cols, C rows x cols. beta is 0 (C is only
 * written) or 1; only where alpha is 1 may beta be 1, or may there be a bias, and not both. */
typedef struct attni_gemm_call {
    int32_t backend;  /* ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE */
    int32_t dtype;    /* float32 or float64: of A, C and every sum */
    int32_t narrow_b; /* 0: B and its strips are of dtype; else their type, of 16 bits, beside
                         float32 and in native products only */
    int64_t batch;
    int64_t rows;
    int64_t cols;
    int64_t inner;
    double alpha;
    double beta;
    attni_matrix a;
    attni_matrix b;
    attni_matrix c;
    const char *bias; /* added to every row: cols elements bias_stride apart, or NULL */
    int64_t bias_stride;
    const attni_product_kernels *kernels; /* of the native product, for B's type */
    const char *strips;  /* NULL, or B for the native product as strips.h has it, all batches' */
    char *strips_memory; /* NULL, or room to put B into strips first; gemm_together.c only */
} attni_gemm_call;

/* The type of B and its strips. */
static inline int32_t attni_gemm_b_dtype(const attni_gemm_call *call) {
    return call->narrow_b != 0 ? call->narrow_b : call->dtype;
}

/* Makes one batch of rows of many, where the layouts of A and C allow it and B is the same for all.
 */
void attni_gemm_collapse(attni_gemm_call *call);

/* ATTN_ERROR_BLAS if `backend` is a BLAS that cannot be used. */
attn_status attni_gemm_check(int32_t backend);

/* Adds the scratch memory a call needs to a layout and returns its offset. It depends on sizes and
 * strides only. */
size_t attni_gemm_add_scratch(const attni_gemm_call *call, attni_layout *layout);

/* Computes the product with the scratch memory that attni_gemm_add_scratch set aside for an equal
 * call. */
void attni_gemm_run(const attni_gemm_call *call, char *scratch);

enum { ATTNI_GEMM_MOST_TOGETHER = 6 };

/* gemm_together.c: up to that many independent native products, shared out to the context's threads
 * if there is enough to do. Fails as attni_parallel_for does, and then none has begun. A call with
 * strips_memory gets its strips there. */
attn_status attni_gemm_native_together(attn_context *context, attni_gemm_call *calls,
                                       int32_t count);

/* gemm_together.c: bytes of strips_memory of a call that has no strips; 0 if it has so few rows
 * that copying B on the way is as fast, or more bytes than there can be, for a layout to refuse. */
int64_t attni_gemm_strips_bytes(const attni_gemm_call *call);

/* Whether that will use threads: attni_start_threads then tells beforehand if it can. */
bool attni_gemm_wants_threads(const attni_gemm_call *calls, int32_t count);

/* attni_gemm_add_scratch and attni_gemm_run for a BLAS whose sizes end at `limit` instead of
 * INT32_MAX, so that tests can see large sizes being cut. */
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

/* gemm_blas.c: whether BLAS may be called in this process: it is there, and this is no forked child
 * whose BLAS may wait for threads that its parent had. */
bool attni_gemm_blas_is_usable(void);

/* gemm_blas.c: one product by a usable BLAS (no batch) of readable views, C not transposed, sizes
 * 1 to INT32_MAX. */
void attni_gemm_blas(const attni_gemm_call *call);

/* gemm_native.c: the whole product by the library's own kernels, on the calling thread: any strides
 * and alignment; inner may be 0. */
void attni_gemm_native(const attni_gemm_call *call);

/* Rows [row, row + rows) and columns [col, col + cols) of C in one batch; col is a multiple of a
 * strip's columns. */
typedef struct attni_gemm_part {
    int64_t batch;
    int64_t row;
    int64_t rows;
    int64_t col;
    int64_t cols;
} attni_gemm_part;

/* How a native product is cut into parts, by its shapes alone. */
typedef struct attni_gemm_grid {
    int64_t row_block;
    int64_t col_block;
    int64_t row_blocks;
    int64_t col_blocks;
    int64_t num_parts;
} attni_gemm_grid;

/* gemm_native.c: the grid of a product, a part of it by its index, and its computation; parts may
 * be computed at the same time, and how a product is cut changes no bit of it. */
attni_gemm_grid attni_gemm_cut(const attni_gemm_call *call);
attni_gemm_part attni_gemm_part_of(const attni_gemm_call *call, const attni_gemm_grid *grid,
                                   int64_t index);
void attni_gemm_native_part(const attni_gemm_call *call, const attni_gemm_part *part);

/* gemm_native.c: how long a product takes, in multiply-adds. */
double attni_gemm_work(const attni_gemm_call *call);

#endif
