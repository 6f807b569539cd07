/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_quantized_strips.c: numbers become integers and a scale for each column by the rule of
 * quantized_strips.h, from every layout and float type, and come back.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gemm/quantized_strips.h"
#include "gemm/strips.h"
#include "placed_matrix.h"

enum { MOST_COLS = 40, MOST_INNER = 33 };

typedef struct quantized {
    char strips[48 * MOST_INNER];
    float scales[MOST_COLS];
} quantized;

static attn_tensor tensor_of(const placed_matrix *matrix) {
    return (attn_tensor){.data = matrix->view.data,
                         .dtype = matrix->dtype,
                         .rank = 2,
                         .shape = {matrix->rows, matrix->cols},
                         .strides = {matrix->view.row_stride, matrix->view.col_stride}};
}

static int8_t element_of(const quantized *made, int64_t inner, int64_t k, int64_t col) {
    return (int8_t)made->strips[attni_strips_offset(ATTN_DTYPE_INT8, inner, k, col)];
}

/* The largest becomes 127, and every number is off by half a scale at most, ties being exact. */
static void assert_column(const quantized *made, const placed_matrix *matrix, int64_t col) {
    double largest = 0;
    for (int64_t k = 0; k < matrix->cols; ++k) {
        largest = fmax(largest, fabs((double)(float)matrix_get(matrix, 0, col, k)));
    }
    const double scale = (double)made->scales[col];
    assert_true(scale >= largest / 127 && scale <= largest / 127 * (1 + (double)FLT_EPSILON));
    int highest = 0;
    for (int64_t k = 0; k < matrix->cols; ++k) {
        const int element = element_of(made, matrix->cols, k, col);
        const double number = (double)(float)matrix_get(matrix, 0, col, k);
        assert_true(fabs(number / scale - element) <= 0.5);
        highest = abs(element) > highest ? abs(element) : highest;
    }
    assert_int_equal(highest, 127);
}

static void check_matrix(enum matrix_layout layout, int32_t dtype, random_state *random) {
    const int64_t rows = random_between(random, 1, MOST_COLS);
    const int64_t cols = random_between(random, 1, MOST_INNER);
    placed_matrix matrix = matrix_place(layout, dtype, 1, rows, cols, false);
    matrix_fill_reals(&matrix, random);
    const attn_tensor from = tensor_of(&matrix);
    quantized made;
    memset(&made, 0x77, sizeof made);
    attni_strips_quantize(made.strips, made.scales, &from);
    placed_matrix back =
        matrix_place((enum matrix_layout)random_between(random, 0, NUM_OUTPUT_LAYOUTS - 1),
                     ATTN_DTYPE_FLOAT32, 1, rows, cols, true);
    const attn_tensor to = tensor_of(&back);
    attni_strips_dequantize(&to, made.strips, made.scales);
    for (int64_t col = 0; col < attni_strips_round_up(ATTN_DTYPE_INT8, rows); ++col) {
        for (int64_t k = 0; k < cols; ++k) {
            const float element = element_of(&made, cols, k, col);
            assert_true(col < rows
                            ? matrix_get(&back, 0, col, k) == (double)(made.scales[col] * element)
                            : element == 0);
        }
        if (col < rows) {
            assert_column(&made, &matrix, col);
        }
    }
    matrix_free(&matrix);
    matrix_free(&back);
}

static void numbers_of_any_layout_are_off_by_half_a_scale_at_most(void **state) {
    (void)state;
    random_state random = random_seeded(801);
    for (int i = 0; i < 20 * NUM_LAYOUTS; ++i) {
        check_matrix((enum matrix_layout)(i % NUM_LAYOUTS),
                     i / NUM_LAYOUTS % 2 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64, &random);
    }
}

static quantized quantize_row(int32_t dtype, const void *numbers, int64_t count) {
    const attn_tensor row = {.data = (void *)(uintptr_t)numbers,
                             .dtype = dtype,
                             .rank = 2,
                             .shape = {1, count},
                             .strides = {count, 1}};
    quantized made;
    attni_strips_quantize(made.strips, made.scales, &row);
    return made;
}

static void ties_go_to_even_integers(void **state) {
    (void)state;
    const float numbers[] = {127, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -127, 3.25F};
    const int expected[] = {127, 0, 2, 2, 0, -2, -127, 3};
    const quantized made = quantize_row(ATTN_DTYPE_FLOAT32, numbers, 8);
    assert_true(made.scales[0] == 1);
    for (int64_t k = 0; k < 8; ++k) {
        assert_int_equal(element_of(&made, 8, k, 0), expected[k]);
    }
}

/* A scale that were rounded down would let the largest number past 127. */
static void scales_are_rounded_up(void **state) {
    (void)state;
    const float numbers[] = {FLT_MAX, FLT_TRUE_MIN, 100 * FLT_TRUE_MIN, 0.1F, FLT_MIN, 1.0F / 3};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
        const quantized made = quantize_row(ATTN_DTYPE_FLOAT32, &numbers[i], 1);
        assert_true((double)made.scales[0] >= (double)numbers[i] / 127);
        assert_true(isfinite(made.scales[0]));
        assert_true(
            fabs((double)numbers[i] / (double)made.scales[0] - element_of(&made, 1, 0, 0)) <= 0.5);
    }
}

static void zeroes_have_scale_0(void **state) {
    (void)state;
    const float numbers[] = {0, -0.0F};
    const quantized made = quantize_row(ATTN_DTYPE_FLOAT32, numbers, 2);
    assert_true(made.scales[0] == 0);
    assert_int_equal(element_of(&made, 2, 0, 0), 0);
    assert_int_equal(element_of(&made, 2, 1, 0), 0);
}

static void what_is_not_finite_makes_its_column_nan(void **state) {
    (void)state;
    const double rows[][3] = {
        {1, NAN, 2}, {INFINITY, 1, 2}, {1, 2, -INFINITY}, {1, 1e39, 2}, {NAN, INFINITY, -INFINITY}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
        const quantized made = quantize_row(ATTN_DTYPE_FLOAT64, rows[i], 3);
        assert_true(isnan(made.scales[0]));
        for (int64_t k = 0; k < 3; ++k) {
            assert_int_equal(element_of(&made, 3, k, 0), 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_any_layout_are_off_by_half_a_scale_at_most),
        cmocka_unit_test(ties_go_to_even_integers),
        cmocka_unit_test(scales_are_rounded_up),
        cmocka_unit_test(zeroes_have_scale_0),
        cmocka_unit_test(what_is_not_finite_makes_its_column_nan),
    };
    return cmocka_run_group_tests_name("quantized strips", tests, NULL, NULL);
}
