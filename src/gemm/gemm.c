/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm.c: cuts a batched product into products that the backend can do, copying what it cannot
 * read.
 */
#include "gemm/gemm.h"

#include <attention/context.h>
#include <attention/tensor.h>

#include "blas_library/blas_library.h"
#include "base/checked_size.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

attn_status attni_gemm_check(int32_t backend) {
    const char *problem = backend == ATTN_GEMM_BLAS ? attni_blas_problem() : NULL;
    if (problem != NULL) {
        return attni_fail(ATTN_ERROR_BLAS, "gemm: the BLAS found at run time cannot be used: %s",
                          problem);
    }
    return ATTN_OK;
}

/* Whether each batch's rows follow those of the batch before, a row's distance apart. */
static bool follows(const attni_matrix *matrix, int64_t rows) {
    int64_t reach;
    return attni_multiply(rows, matrix->row_stride, &reach) && matrix->batch_stride == reach;
}

void attni_gemm_collapse(attni_gemm_call *call) {
    const bool collapses = follows(&call->a, call->rows) && follows(&call->c, call->rows);
    if (call->batch <= 1 || collapses) {
        call->rows *= call->batch;
        call->batch = call->rows > 0 ? 1 : 0;
    } else if (call->rows == 1) {
        /* One row per batch: the batch axis is the row axis. */
        call->rows = call->batch;
        call->batch = 1;
        call->a.row_stride = call->a.batch_stride;
        call->c.row_stride = call->c.batch_stride;
    }
}

/* Which of the three matrices of a call BLAS cannot read in place. */
typedef struct copies {
    bool a;
    bool b;
    bool c;
} copies;

static copies copies_of(const attni_gemm_call *call) {
    return (copies){
        .a = !attni_blas_layout_of(&call->a, call->rows, call->inner).readable,
        .b = !attni_blas_layout_of(&call->b, call->inner, call->cols).readable,
        .c = !attni_blas_layout_of(&call->c, call->rows, call->cols).readable,
    };
}

size_t attni_gemm_add_scratch_limited(const attni_gemm_call *call, int64_t limit,
                                      attni_layout *layout) {
    const size_t element = attn_dtype_size_bytes(call->dtype);
    const size_t offset = layout->bytes;
    if (call->backend != ATTN_GEMM_BLAS) {
        return offset;
    }
    attni_gemm_call piece = *call;
    piece.rows = attni_min(call->rows, limit);
    piece.cols = attni_min(call->cols, limit);
    piece.inner = attni_min(call->inner, limit);
    const copies copy = copies_of(&piece);
    /* Rows times the element size cannot overflow here: a piece is at most limit <= INT32_MAX long.
     */
    attni_layout_add(layout, copy.a ? piece.rows : 0, (size_t)piece.inner * element);
    attni_layout_add(layout, copy.b ? piece.inner : 0, (size_t)piece.cols * element);
    attni_layout_add(layout, copy.c ? piece.rows : 0, (size_t)piece.cols * element);
    return offset;
}

/* Copies a rows x cols matrix to dense rows in the layout's next piece, and makes *matrix that
 * copy. */
static void make_dense(attni_matrix *matrix, int64_t rows, int64_t cols, size_t element,
                       char *scratch, attni_layout *layout, bool fill) {
    const attni_strided_matrix from = {matrix->data, matrix->row_stride, matrix->col_stride};
    const size_t offset = attni_layout_add(layout, rows, (size_t)cols * element);
    const attni_strided_matrix dense = {scratch + offset, cols, 1};
    if (fill) {
        attni_copy_matrix(dense, from, rows, cols, element);
    }
    *matrix = (attni_matrix){.data = dense.data, .row_stride = cols, .col_stride = 1};
}

static attni_matrix transposed(attni_matrix matrix) {
    const int64_t row_stride = matrix.row_stride;
    matrix.row_stride = matrix.col_stride;
    matrix.col_stride = row_stride;
    return matrix;
}

/* C^T = B^T A^T: BLAS writes dense rows only, so a C with dense columns is computed as its
 * transpose. */
static attni_gemm_call transposed_call(const attni_gemm_call *call) {
    attni_gemm_call swapped = *call;
    swapped.rows = call->cols;
    swapped.cols = call->rows;
    swapped.a = transposed(call->b);
    swapped.b = transposed(call->a);
    swapped.c = transposed(call->c);
    return swapped;
}

/* One product of sizes 1 to limit. */
static void run_piece(const attni_gemm_call *call, char *scratch) {
    const copies copy = copies_of(call);
    const size_t element = attn_dtype_size_bytes(call->dtype);
    attni_gemm_call ready = *call;
    attni_layout layout = {0};
    if (copy.a) {
        make_dense(&ready.a, call->rows, call->inner, element, scratch, &layout, true);
    }
    if (copy.b) {
        make_dense(&ready.b, call->inner, call->cols, element, scratch, &layout, true);
    }
    if (copy.c) {
        make_dense(&ready.c, call->rows, call->cols, element, scratch, &layout, call->beta != 0);
    }
    if (attni_blas_layout_of(&ready.c, ready.rows, ready.cols).transposed) {
        ready = transposed_call(&ready);
    }
    attni_gemm_blas(&ready);
    if (copy.c) {
        const attni_strided_matrix to = {call->c.data, call->c.row_stride, call->c.col_stride};
        const attni_strided_matrix from = {ready.c.data, call->cols, 1};
        attni_copy_matrix(to, from, call->rows, call->cols, element);
    }
}

static attni_matrix moved(attni_matrix matrix, int64_t row, int64_t col, size_t element) {
    matrix.data += (row * matrix.row_stride + col * matrix.col_stride) * (int64_t)element;
    return matrix;
}

/* One product of any size, cut into pieces; later pieces of the inner axis add to what the first
 * one wrote. */
static void run_pieces(const attni_gemm_call *call, int64_t limit, char *scratch) {
    const size_t element = attn_dtype_size_bytes(call->dtype);
    for (int64_t row = 0; row < call->rows; row += limit) {
        for (int64_t col = 0; col < call->cols; col += limit) {
            for (int64_t inner = 0; inner < call->inner; inner += limit) {
                attni_gemm_call piece = *call;
                piece.rows = attni_min(limit, call->rows - row);
                piece.cols = attni_min(limit, call->cols - col);
                piece.inner = attni_min(limit, call->inner - inner);
                piece.a = moved(call->a, row, inner, element);
                piece.b = moved(call->b, inner, col, element);
                piece.c = moved(call->c, row, col, element);
                piece.beta = inner == 0 ? call->beta : 1;
                run_piece(&piece, scratch);
            }
        }
    }
}

static bool is_aligned(const attni_gemm_call *call) {
    const uintptr_t addresses =
        (uintptr_t)call->a.data | (uintptr_t)call->b.data | (uintptr_t)call->c.data;
    return addresses % attn_dtype_size_bytes(call->dtype) == 0;
}

/* Whether no element of a float64 matrix, of any batch, is NaN or infinite: their exponents are all
 * ones. */
static bool is_finite(const attni_matrix *matrix, int64_t batch, int64_t rows, int64_t cols) {
    const uint64_t exponent = UINT64_C(0x7ff0000000000000);
    bool is_found = false;
    for (int64_t line = 0; line < batch * rows && !is_found; ++line) {
        const int64_t first = line / rows * matrix->batch_stride + line % rows * matrix->row_stride;
        for (int64_t col = 0; col < cols; ++col) {
            const int64_t bits = attni_read_int64(matrix->data, first + col * matrix->col_stride);
            is_found |= ((uint64_t)bits & exponent) == exponent;
        }
    }
    return !is_found;
}

/* What this BLAS would compute otherwise than the formula says. */
static bool is_beyond_blas(const attni_gemm_call *call) {
    if (call->dtype == ATTN_DTYPE_FLOAT32) {
        return attni_blas_may_stray_in_float32();
    }
    return attni_blas_may_lose_nan() &&
           !(is_finite(&call->a, call->batch, call->rows, call->inner) &&
             is_finite(&call->b, call->batch, call->inner, call->cols));
}

/* Empty sums are not: some BLAS versions do not write C when the inner size is 0. */
static bool can_be_left_to_blas(const attni_gemm_call *call) {
    return call->backend == ATTN_GEMM_BLAS && call->inner > 0 && is_aligned(call) &&
           attni_gemm_blas_is_usable() && !is_beyond_blas(call);
}

/* BLAS adds to what C holds. */
static void write_bias(const attni_gemm_call *call) {
    const size_t element = attn_dtype_size_bytes(call->dtype);
    const attni_strided_matrix from = {(char *)(uintptr_t)call->bias, 0, call->bias_stride};
    const attni_strided_matrix to = {call->c.data, call->c.row_stride, call->c.col_stride};
    attni_copy_matrix(to, from, call->rows, call->cols, element);
}

void attni_gemm_run_limited(const attni_gemm_call *call, int64_t limit, char *scratch) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(call->dtype);
    if (call->rows == 0 || call->cols == 0) {
        return;
    }
    if (!can_be_left_to_blas(call)) {
        attni_gemm_native(call);
        return;
    }
    for (int64_t batch = 0; batch < call->batch; ++batch) {
        attni_gemm_call one = *call;
        one.a.data = attni_advance(call->a.data, batch * call->a.batch_stride * element);
        one.b.data = attni_advance(call->b.data, batch * call->b.batch_stride * element);
        one.c.data = attni_advance(call->c.data, batch * call->c.batch_stride * element);
        if (call->bias != NULL) {
            write_bias(&one);
            one.beta = 1;
        }
        run_pieces(&one, limit, scratch);
    }
}

size_t attni_gemm_add_scratch(const attni_gemm_call *call, attni_layout *layout) {
    return attni_gemm_add_scratch_limited(call, INT32_MAX, layout);
}

void attni_gemm_run(const attni_gemm_call *call, char *scratch) {
    attni_gemm_run_limited(call, INT32_MAX, scratch);
}
