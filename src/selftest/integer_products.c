/* SPDX-License-Identifier: BSD-3-Clause
 *
 * integer_products.c: C = alpha A B + beta C of integers so small that every sum is exact in either
 * type, in whatever order it is taken. A and B stand among NaN, which must not be read, and C among
 * numbers that must not be written.
 */
#include <stdbool.h>

#include "base/checked_size.h"
#include "base/workspace.h"
#include "gemm/gemm.h"
#include "selftest/known_results.h"
#include "tensor/element.h"

/* From one element up to where BLAS and the library share the work among threads; sizes beside the
 * blocks of kernels; an empty sum. */
static const struct product_shape {
    int64_t rows;
    int64_t cols;
    int64_t inner;
} shapes[] = {{1, 1, 1},  {1, 17, 33},  {7, 5, 0},     {13, 1, 64},
              {6, 96, 8}, {33, 49, 65}, {81, 110, 121}};

enum {
    MARGIN = 3, /* elements behind every stored row */
    UNTOUCHED = 12345
};

/* How a product is asked for, one bit each. */
enum product_form {
    A_TRANSPOSED = 1, /* stored by columns */
    B_TRANSPOSED = 2,
    C_TRANSPOSED = 4,
    ADDS = 8, /* alpha = 1, beta = 1; else -2 and 0 */
    FORMS = 16
};

/* The integers of a product, dense, and room for the matrices made of them. */
typedef struct integer_product {
    struct product_shape shape;
    char *stored_a;
    char *stored_b;
    char *stored_c;
    int32_t *a;
    int32_t *b;
    int32_t *c;
    int32_t *product; /* A B */
} integer_product;

/* ---- one matrix as the product sees it ---- */

typedef struct stored_matrix {
    char *data;
    int64_t lines; /* rows, or columns where those are stored one after the other */
    int64_t length;
    bool transposed;
} stored_matrix;

static stored_matrix store(char *data, int64_t rows, int64_t cols, bool transposed) {
    return (stored_matrix){data, transposed ? cols : rows, transposed ? rows : cols, transposed};
}

static int64_t stored_elements(const stored_matrix *matrix) {
    return matrix->lines * (matrix->length + MARGIN);
}

/* One of the strides is 1: BLAS reads and writes such a matrix in place, without scratch memory. */
static attni_matrix view_of(const stored_matrix *matrix) {
    const int64_t line = matrix->length + MARGIN;
    return (attni_matrix){.data = matrix->data,
                          .row_stride = matrix->transposed ? 1 : line,
                          .col_stride = matrix->transposed ? line : 1};
}

/* Writes integers, NaN where there are none, and `margin` beside them. */
static void fill(const stored_matrix *matrix, int32_t dtype, const int32_t *integers,
                 double margin) {
    for (int64_t line = 0; line < matrix->lines; ++line) {
        for (int64_t i = 0; i < matrix->length + MARGIN; ++i) {
            double number = i < matrix->length ? __builtin_nan("") : margin;
            if (i < matrix->length && integers != NULL) {
                number = integers[matrix->transposed ? i * matrix->lines + line
                                                     : line * matrix->length + i];
            }
            attni_write_real(matrix->data, line * (matrix->length + MARGIN) + i, dtype, number);
        }
    }
}

/* ---- one product ---- */

static attn_status wrong_element(const attni_gemm_call *call, int form, int64_t row, int64_t col,
                                 double expected, double got) {
    return attni_fail(
        ATTN_ERROR_SELFTEST,
        "%s product by %s, %d x %d x %d%s%s%s%s: expected %g at (%d, %d)%s, got %g",
        attni_selftest_type_name(call->dtype),
        call->backend == ATTN_GEMM_BLAS ? "BLAS" : "the library", (int)call->rows, (int)call->cols,
        (int)call->inner, form & A_TRANSPOSED ? ", A transposed" : "",
        form & B_TRANSPOSED ? ", B transposed" : "", form & C_TRANSPOSED ? ", C transposed" : "",
        form & ADDS ? ", added to C" : ", C overwritten", expected, (int)row, (int)col,
        col < call->cols && row < call->rows ? "" : " outside C", got);
}

static attn_status compare(const attni_gemm_call *call, int form, const stored_matrix *c,
                           const integer_product *known) {
    const int64_t cols = known->shape.cols;
    for (int64_t line = 0; line < c->lines; ++line) {
        for (int64_t i = 0; i < c->length + MARGIN; ++i) {
            const int64_t row = c->transposed ? i : line;
            const int64_t col = c->transposed ? line : i;
            const double got =
                attni_read_real(c->data, line * (c->length + MARGIN) + i, call->dtype);
            double expected = UNTOUCHED;
            if (i < c->length) {
                const int64_t at = row * cols + col;
                expected = call->alpha * known->product[at] + call->beta * known->c[at];
            }
            /* NaN is not equal to itself, so a result of NaN is wrong, too. */
            if (!(got == expected)) {
                return wrong_element(call, form, row, col, expected, got);
            }
        }
    }
    return ATTN_OK;
}

static attn_status run_product(attn_context *context, attni_gemm_call *call) {
    if (call->backend == ATTN_GEMM_BLAS) {
        attni_gemm_run(call, NULL);
        return ATTN_OK;
    }
    return attni_gemm_native_together(context, call, 1);
}

static attn_status check_form(attn_context *context, int32_t dtype, int32_t backend, int form,
                              const integer_product *known) {
    const struct product_shape *shape = &known->shape;
    const stored_matrix a = store(known->stored_a, shape->rows, shape->inner, form & A_TRANSPOSED);
    const stored_matrix b = store(known->stored_b, shape->inner, shape->cols, form & B_TRANSPOSED);
    const stored_matrix c = store(known->stored_c, shape->rows, shape->cols, form & C_TRANSPOSED);
    const double nan = __builtin_nan("");
    fill(&a, dtype, known->a, nan);
    fill(&b, dtype, known->b, nan);
    fill(&c, dtype, form & ADDS ? known->c : NULL, UNTOUCHED);
    attni_gemm_call call = {
        .backend = backend,
        .dtype = dtype,
        .batch = 1,
        .rows = shape->rows,
        .cols = shape->cols,
        .inner = shape->inner,
        .alpha = form & ADDS ? 1 : -2,
        .beta = form & ADDS ? 1 : 0,
        .a = view_of(&a),
        .b = view_of(&b),
        .c = view_of(&c),
        .kernels = attni_product_kernels_of(attni_context_kernels(context), dtype),
    };
    ATTNI_TRY(run_product(context, &call));
    return compare(&call, form, &c, known);
}

/* ---- one shape ---- */

static void fill_integers(int32_t *integers, uint32_t which, int64_t rows, int64_t cols) {
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t col = 0; col < cols; ++col) {
            integers[row * cols + col] = attni_selftest_integer(which, row, col);
        }
    }
}

static void multiply_integers(const integer_product *known) {
    const struct product_shape *shape = &known->shape;
    for (int64_t row = 0; row < shape->rows; ++row) {
        int32_t *sums = known->product + row * shape->cols;
        for (int64_t col = 0; col < shape->cols; ++col) {
            sums[col] = 0;
        }
        for (int64_t i = 0; i < shape->inner; ++i) {
            const int32_t factor = known->a[row * shape->inner + i];
            const int32_t *b = known->b + i * shape->cols;
            for (int64_t col = 0; col < shape->cols; ++col) {
                sums[col] += factor * b[col];
            }
        }
    }
}

/* Room for a matrix stored either way; its offset. */
static size_t add_stored(attni_layout *layout, int64_t rows, int64_t cols, int32_t dtype) {
    const stored_matrix by_rows = store(NULL, rows, cols, false);
    const stored_matrix by_cols = store(NULL, rows, cols, true);
    return attni_layout_add(layout, attni_max(stored_elements(&by_rows), stored_elements(&by_cols)),
                            attn_dtype_size_bytes(dtype));
}

static size_t add_integers(attni_layout *layout, int64_t rows, int64_t cols) {
    return attni_layout_add(layout, rows * cols, sizeof(int32_t));
}

static attn_status check_forms(attn_context *context, int32_t dtype, int32_t backend,
                               attni_selftest_forms forms, const integer_product *known) {
    const struct product_shape *shape = &known->shape;
    fill_integers(known->a, 1, shape->rows, shape->inner);
    fill_integers(known->b, 2, shape->inner, shape->cols);
    fill_integers(known->c, 3, shape->rows, shape->cols);
    multiply_integers(known);
    for (int form = forms.first; form < FORMS; form += forms.step) {
        ATTNI_TRY(check_form(context, dtype, backend, form, known));
    }
    return ATTN_OK;
}

static attn_status check_shape(attn_context *context, int32_t dtype, int32_t backend,
                               attni_selftest_forms forms, const struct product_shape *shape) {
    attni_layout layout = {0};
    const size_t stored_a = add_stored(&layout, shape->rows, shape->inner, dtype);
    const size_t stored_b = add_stored(&layout, shape->inner, shape->cols, dtype);
    const size_t stored_c = add_stored(&layout, shape->rows, shape->cols, dtype);
    const size_t a = add_integers(&layout, shape->rows, shape->inner);
    const size_t b = add_integers(&layout, shape->inner, shape->cols);
    const size_t c = add_integers(&layout, shape->rows, shape->cols);
    const size_t product = add_integers(&layout, shape->rows, shape->cols);
    attni_workspace memory;
    ATTNI_TRY(attni_workspace_acquire(&layout, attni_context_allocator(context), NULL, &memory));
    const integer_product known = {.shape = *shape,
                                   .stored_a = memory.base + stored_a,
                                   .stored_b = memory.base + stored_b,
                                   .stored_c = memory.base + stored_c,
                                   .a = (int32_t *)(void *)(memory.base + a),
                                   .b = (int32_t *)(void *)(memory.base + b),
                                   .c = (int32_t *)(void *)(memory.base + c),
                                   .product = (int32_t *)(void *)(memory.base + product)};
    const attn_status status = check_forms(context, dtype, backend, forms, &known);
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}

attn_status attni_selftest_products(attn_context *context, int32_t dtype, int32_t backend,
                                    attni_selftest_forms forms) {
    ATTNI_TRY(attni_gemm_check(backend));
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
        /* No BLAS is asked for empty sums (gemm.c). */
        if (shapes[i].inner > 0 || backend == ATTN_GEMM_NATIVE) {
            ATTNI_TRY(check_shape(context, dtype, backend, forms, &shapes[i]));
        }
    }
    return ATTN_OK;
}
