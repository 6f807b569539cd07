/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_strips.c: matrices into strips, in every layout and float type, and exactly back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gemm/gemm.h"
#include "gemm/strips.h"
#include "placed_matrix.h"
#include "tensor/element.h"

static const int64_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 33, 64};

enum { NUM_LENGTHS = sizeof lengths / sizeof lengths[0], GAP = 0xFF };

static attn_tensor tensor_of(const placed_matrix *matrix) {
    return (attn_tensor){.data = matrix->view.data,
                         .dtype = matrix->dtype,
                         .rank = 2,
                         .shape = {matrix->rows, matrix->cols},
                         .strides = {matrix->view.row_stride, matrix->view.col_stride}};
}

/* Every place of the strips holds its element or, behind the last column, 0. */
static void assert_strips(const char *strips, int32_t dtype, const placed_matrix *matrix) {
    const int64_t all_cols = attni_strips_round_up(dtype, matrix->rows);
    for (int64_t col = 0; col < all_cols; ++col) {
        for (int64_t k = 0; k < matrix->cols; ++k) {
            const double expected = col < matrix->rows ? matrix_get(matrix, 0, col, k) : 0;
            const double narrow = dtype == ATTN_DTYPE_FLOAT32 ? (double)(float)expected : expected;
            const int64_t offset = attni_strips_offset(dtype, matrix->cols, k, col);
            assert_true(attni_read_real(strips, offset, dtype) == narrow);
        }
    }
}

static void check_strips(int32_t dtype, int32_t source, enum matrix_layout layout,
                         random_state *random) {
    const int64_t rows = lengths[random_between(random, 0, NUM_LENGTHS - 1)];
    const int64_t cols = lengths[random_between(random, 0, NUM_LENGTHS - 1)];
    placed_matrix matrix = matrix_place(layout, source, 1, rows, cols, false);
    matrix_fill_reals(&matrix, random);
    const size_t bytes =
        (size_t)(attni_strips_round_up(dtype, rows) * cols) * attn_dtype_size_bytes(dtype);
    char *strips = malloc(bytes);
    assert_non_null(strips);
    memset(strips, GAP, bytes);
    const attn_tensor from = tensor_of(&matrix);
    attni_strips_pack(strips, dtype, &from);
    assert_strips(strips, dtype, &matrix);
    placed_matrix back =
        matrix_place((enum matrix_layout)random_between(random, 0, NUM_OUTPUT_LAYOUTS - 1), dtype,
                     1, rows, cols, true);
    const attn_tensor to = tensor_of(&back);
    attni_strips_unpack(&to, to.dtype, strips);
    assert_strips(strips, dtype, &back);
    free(strips);
    matrix_free(&matrix);
    matrix_free(&back);
}

static void strips_hold_every_element_and_give_it_back(void **state) {
    (void)state;
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
    random_state random = random_seeded(601);
    for (int i = 0; i < 100 * NUM_LAYOUTS; ++i) {
        check_strips(dtypes[i % 2], dtypes[i / 2 % 2], (enum matrix_layout)(i % NUM_LAYOUTS),
                     &random);
    }
}

static void strips_are_64_bytes_wide(void **state) {
    (void)state;
    assert_int_equal(attni_strip_cols(ATTN_DTYPE_FLOAT32), 16);
    assert_int_equal(attni_strip_cols(ATTN_DTYPE_FLOAT64), 8);
    assert_int_equal(attni_strips_round_up(ATTN_DTYPE_FLOAT32, 0), 0);
    assert_int_equal(attni_strips_round_up(ATTN_DTYPE_FLOAT32, 16), 16);
    assert_int_equal(attni_strips_round_up(ATTN_DTYPE_FLOAT64, 17), 24);
}

/* Bytes of the strips that a product wants: none for a few rows, and no lower number than the right
 * one where that does not fit. */
static void strips_wanted_are_those_of_many_rows(void **state) {
    (void)state;
    const int64_t far = INT64_C(1) << 40;
    const struct {
        int64_t batch, rows, inner, cols, bytes;
    } cases[] = {
        {1, 192, 10, 33, 0},
        {2, 96, 10, 33, 0},
        {1, 193, 10, 33, 48 * 10 * 4},
        {2, 97, 10, 32, 32 * 10 * 4},
        {far, far, 10, 33, 48 * 10 * 4},
        {1, 193, far, (INT64_C(1) << 21) - 1, INT64_MAX},
        {1, 193, far, (INT64_C(1) << 21) - 16, ((INT64_C(1) << 21) - 16) * far * 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        const attni_gemm_call call = {.dtype = ATTN_DTYPE_FLOAT32,
                                      .batch = cases[i].batch,
                                      .rows = cases[i].rows,
                                      .inner = cases[i].inner,
                                      .cols = cases[i].cols};
        assert_true(attni_gemm_strips_bytes(&call) == cases[i].bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strips_hold_every_element_and_give_it_back),
        cmocka_unit_test(strips_are_64_bytes_wide),
        cmocka_unit_test(strips_wanted_are_those_of_many_rows),
    };
    return cmocka_run_group_tests_name("strips", tests, NULL, NULL);
}
