/* SPDX-License-Identifier: BSD-3-Clause
 *
 * placed_matrix.c: strides of each layout, exact memory, and products by three loops.
 */
#include "placed_matrix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/context.h>
#include <attention/tensor.h>

enum { MARGIN = 64, GAP_BYTE = 0xFF, CANARY = 0xA5 };

/* Batch, row and column strides. */
static attni_matrix strides_of(enum matrix_layout layout, int64_t batch, int64_t rows,
                               int64_t cols) {
    switch (layout) {
    case COLUMN_MAJOR:
        return (attni_matrix){NULL, rows * cols, 1, rows};
    case WIDE_ROWS:
        return (attni_matrix){NULL, rows * (cols + 3) + 1, cols + 3, 1};
    case WIDE_COLUMNS:
        return (attni_matrix){NULL, cols * (rows + 3) + 1, 1, rows + 3};
    case STRIDED_BOTH:
        return (attni_matrix){NULL, rows * (2 * cols + 1), 2 * cols + 1, 2};
    case REVERSED_ROWS:
        return (attni_matrix){NULL, rows * cols, -cols, 1};
    case REVERSED_COLUMNS:
        return (attni_matrix){NULL, rows * cols, cols, -1};
    case INTERLEAVED_BATCH:
        return (attni_matrix){NULL, cols, batch * cols, 1};
    case REPEATED_ROW:
        return (attni_matrix){NULL, cols, 0, 1};
    case REPEATED_COLUMN:
        return (attni_matrix){NULL, rows, 1, 0};
    case REPEATED_BATCH:
        return (attni_matrix){NULL, 0, cols, 1};
    default:
        return (attni_matrix){NULL, rows * cols, cols, 1};
    }
}

static int64_t element_bytes(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? 4 : 8;
}

placed_matrix matrix_place(enum matrix_layout layout, int32_t dtype, int64_t batch, int64_t rows,
                           int64_t cols, bool is_output) {
    placed_matrix matrix = {
        strides_of(layout, batch, rows, cols), dtype, batch, rows, cols, NULL, 0};
    const int64_t lengths[] = {batch, rows, cols};
    const int64_t strides[] = {matrix.view.batch_stride, matrix.view.row_stride,
                               matrix.view.col_stride};
    const bool is_empty = batch == 0 || rows == 0 || cols == 0;
    int64_t lowest = 0;
    int64_t highest = is_empty ? -1 : 0;
    for (int axis = 0; axis < 3 && !is_empty; ++axis) {
        const int64_t reach = (lengths[axis] - 1) * strides[axis];
        lowest += reach < 0 ? reach : 0;
        highest += reach > 0 ? reach : 0;
    }
    const int64_t margin = is_output ? MARGIN : 0;
    const int64_t shift = layout == UNALIGNED ? 1 : 0;
    matrix.bytes = (size_t)((highest + 1 - lowest) * element_bytes(dtype) + 2 * margin + shift);
    matrix.memory = malloc(matrix.bytes + 1);
    assert_non_null(matrix.memory);
    memset(matrix.memory, GAP_BYTE, matrix.bytes);
    matrix.view.data = matrix.memory + margin + shift - lowest * element_bytes(dtype);
    return matrix;
}

void matrix_free(placed_matrix *matrix) {
    free(matrix->memory);
    matrix->memory = NULL;
}

static char *place_of(const placed_matrix *matrix, int64_t batch, int64_t row, int64_t col) {
    const attni_matrix *view = &matrix->view;
    const int64_t offset =
        batch * view->batch_stride + row * view->row_stride + col * view->col_stride;
    return view->data + offset * element_bytes(matrix->dtype);
}

static void write_number(char *place, int32_t dtype, double value) {
    const float single = (float)value;
    if (dtype == ATTN_DTYPE_FLOAT32) {
        memcpy(place, &single, sizeof single);
    } else {
        memcpy(place, &value, sizeof value);
    }
}

double matrix_get(const placed_matrix *matrix, int64_t batch, int64_t row, int64_t col) {
    const char *place = place_of(matrix, batch, row, col);
    double value;
    float single;
    if (matrix->dtype == ATTN_DTYPE_FLOAT32) {
        memcpy(&single, place, sizeof single);
        return (double)single;
    }
    memcpy(&value, place, sizeof value);
    return value;
}

void matrix_set(placed_matrix *matrix, int64_t batch, int64_t row, int64_t col, double value) {
    write_number(place_of(matrix, batch, row, col), matrix->dtype, value);
}

static void fill(placed_matrix *matrix, random_state *random, int64_t most) {
    for (int64_t n = 0; n < matrix->batch; ++n) {
        for (int64_t r = 0; r < matrix->rows; ++r) {
            for (int64_t c = 0; c < matrix->cols; ++c) {
                const double value = most > 0 ? (double)random_between(random, -most, most)
                                              : random_real(random, -1, 1);
                matrix_set(matrix, n, r, c, value);
            }
        }
    }
}

void matrix_fill_integers(placed_matrix *matrix, random_state *random, int64_t most) {
    fill(matrix, random, most);
}

void matrix_fill_reals(placed_matrix *matrix, random_state *random) {
    fill(matrix, random, 0);
}

/* ---- products ---- */

gemm_case gemm_case_make(const attni_gemm_call *call, gemm_layouts layouts, random_state *random) {
    gemm_case item = {.call = *call};
    if (item.call.kernels == NULL) {
        item.call.kernels = attni_product_kernels_of(attni_kernel_set_at(0), call->dtype);
    }
    item.a = matrix_place(layouts.a, call->dtype, call->batch, call->rows, call->inner, false);
    item.b = matrix_place(layouts.b, call->dtype, call->batch, call->inner, call->cols, false);
    item.c = matrix_place(layouts.c, call->dtype, call->batch, call->rows, call->cols, true);
    matrix_fill_integers(&item.a, random, 8);
    matrix_fill_integers(&item.b, random, 8);
    if (call->beta != 0) {
        matrix_fill_integers(&item.c, random, 100);
    }
    item.call.a = item.a.view;
    item.call.b = item.b.view;
    item.call.c = item.c.view;
    return item;
}

void gemm_case_free(gemm_case *item) {
    matrix_free(&item->a);
    matrix_free(&item->b);
    matrix_free(&item->c);
}

static double dot(const gemm_case *item, int64_t batch, int64_t row, int64_t col) {
    double sum = 0;
    for (int64_t k = 0; k < item->call.inner; ++k) {
        sum += matrix_get(&item->a, batch, row, k) * matrix_get(&item->b, batch, k, col);
    }
    return sum;
}

char *gemm_case_expected(const gemm_case *item) {
    const attni_gemm_call *call = &item->call;
    char *expected = malloc(item->c.bytes + 1);
    assert_non_null(expected);
    memcpy(expected, item->c.memory, item->c.bytes);
    for (int64_t n = 0; n < call->batch; ++n) {
        for (int64_t r = 0; r < call->rows; ++r) {
            for (int64_t c = 0; c < call->cols; ++c) {
                const double before = call->beta != 0 ? matrix_get(&item->c, n, r, c) : 0;
                const double value = call->alpha * dot(item, n, r, c) + before;
                /* Adding 0 makes -0 of an empty or cancelled sum 0. */
                write_number(expected + (place_of(&item->c, n, r, c) - item->c.memory), call->dtype,
                             value + 0.0);
            }
        }
    }
    return expected;
}

const char *gemm_case_text(const gemm_case *item) {
    static char text[300];
    const attni_gemm_call *call = &item->call;
    snprintf(text, sizeof text,
             "%s %s, %lld x (%lld x %lld) = (%lld x %lld) (%lld x %lld), alpha %g, beta %g, "
             "strides (%lld, %lld), (%lld, %lld), (%lld, %lld)",
             call->dtype == ATTN_DTYPE_FLOAT32 ? "float32" : "float64",
             call->backend == ATTN_GEMM_BLAS ? "blas" : "native", (long long)call->batch,
             (long long)call->rows, (long long)call->cols, (long long)call->rows,
             (long long)call->inner, (long long)call->inner, (long long)call->cols, call->alpha,
             call->beta, (long long)call->a.row_stride, (long long)call->a.col_stride,
             (long long)call->b.row_stride, (long long)call->b.col_stride,
             (long long)call->c.row_stride, (long long)call->c.col_stride);
    return text;
}

void gemm_case_assert(const gemm_case *item, const char *expected) {
    const attni_gemm_call *call = &item->call;
    if (memcmp(item->c.memory, expected, item->c.bytes) == 0) {
        return;
    }
    placed_matrix wanted = item->c;
    wanted.view.data = (char *)(uintptr_t)expected + (item->c.view.data - item->c.memory);
    bool same = true;
    for (int64_t n = 0; n < call->batch; ++n) {
        for (int64_t r = 0; r < call->rows; ++r) {
            for (int64_t c = 0; c < call->cols; ++c) {
                const double actual = matrix_get(&item->c, n, r, c);
                const double right = matrix_get(&wanted, n, r, c);
                if (!(actual == right)) {
                    fail_msg("%s: (%lld, %lld, %lld): expected %g, got %g", gemm_case_text(item),
                             (long long)n, (long long)r, (long long)c, right, actual);
                }
                same = same && actual == right;
                /* Zeroes of either sign are the same result. */
                matrix_set(&wanted, n, r, c, actual);
            }
        }
    }
    if (same && memcmp(item->c.memory, expected, item->c.bytes) != 0) {
        fail_msg("%s: memory between or around C's elements was written", gemm_case_text(item));
    }
}

void gemm_case_run(const gemm_case *item, int64_t limit) {
    attni_layout layout = {.bytes = 3 * ATTNI_ALIGNMENT};
    const size_t offset = attni_gemm_add_scratch_limited(&item->call, limit, &layout);
    assert_int_equal(offset, 3 * ATTNI_ALIGNMENT);
    assert_false(layout.overflow);
    const size_t bytes = layout.bytes - offset;
    void *block = NULL;
    assert_int_equal(posix_memalign(&block, ATTNI_ALIGNMENT, bytes + 2 * MARGIN), 0);
    char *scratch = block;
    memset(scratch, GAP_BYTE, bytes + 2 * MARGIN);
    memset(scratch, CANARY, MARGIN);
    memset(scratch + MARGIN + bytes, CANARY, MARGIN);
    attni_gemm_run_limited(&item->call, limit, scratch + MARGIN);
    for (int i = 0; i < MARGIN; ++i) {
        if ((unsigned char)scratch[i] != CANARY ||
            (unsigned char)scratch[MARGIN + bytes + (size_t)i] != CANARY) {
            fail_msg("%s: memory around the scratch was written", gemm_case_text(item));
        }
    }
    free(block);
}
