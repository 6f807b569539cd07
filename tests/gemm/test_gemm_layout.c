/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_layout.c: how BLAS reads a matrix: a table of what callers have, and every small matrix
 * against the definition.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gemm/gemm.h"
#include "support/random.h"

struct layout_case {
    int64_t rows;
    int64_t cols;
    int64_t row_stride;
    int64_t col_stride;
    attni_blas_layout expected;
};

static const int64_t beyond = INT64_C(1) + INT32_MAX;

static void layout_of_usual_matrices_is_as_listed(void **state) {
    (void)state;
    const struct layout_case cases[] = {
        {3, 5, 5, 1, {true, false, 5}},  /* dense rows */
        {3, 5, 9, 1, {true, false, 9}},  /* rows of a wider buffer */
        {3, 5, 1, 3, {true, true, 3}},   /* dense columns */
        {3, 5, 1, 8, {true, true, 8}},   /* columns of a taller buffer */
        {1, 5, 77, 1, {true, false, 5}}, /* one row: its stride is never used */
        {1, 5, -7, 1, {true, false, 5}},
        {1, 5, 0, 1, {true, false, 5}},
        {1, 5, 1, 4, {true, true, 4}},   /* one row with gaps is a matrix of columns of 1 */
        {3, 1, 1, 1, {true, false, 1}},  /* one column */
        {3, 1, 4, 99, {true, false, 4}}, /* one column with gaps is a matrix of rows of 1 */
        {3, 1, 1, 0, {true, false, 1}},
        {1, 1, 0, 0, {true, false, 1}},
        {1, 1, -5, -9, {true, false, 1}},
        {3, 5, 4, 1, {false, false, 1}},  /* rows overlap */
        {3, 5, 0, 1, {false, false, 1}},  /* one row repeated */
        {3, 5, 1, 0, {false, false, 1}},  /* one column repeated */
        {3, 5, -5, 1, {false, false, 1}}, /* rows reversed */
        {3, 5, 5, -1, {false, false, 1}}, /* columns reversed */
        {3, 5, 10, 2, {false, false, 1}}, /* gaps both ways */
        {3, 1, 0, 1, {false, false, 1}},  /* one element repeated */
        {1, 5, 1, 0, {false, false, 1}},
        {3, 1, -1, 1, {false, false, 1}},
        {2, 5, INT32_MAX, 1, {true, false, INT32_MAX}}, /* the largest leading dimension */
        {2, 5, beyond, 1, {false, false, 1}},
        {1, 5, beyond, 1, {true, false, 5}},
        {5, 2, 1, INT32_MAX, {true, true, INT32_MAX}},
        {5, 2, 1, beyond, {false, false, 1}},
        {1, INT32_MAX, 1, 1, {true, false, INT32_MAX}}, /* the longest row */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        const attni_matrix matrix = {NULL, 0, cases[i].row_stride, cases[i].col_stride};
        const attni_blas_layout actual =
            attni_blas_layout_of(&matrix, cases[i].rows, cases[i].cols);
        const attni_blas_layout *expected = &cases[i].expected;
        if (actual.readable != expected->readable ||
            (actual.readable && (actual.transposed != expected->transposed ||
                                 actual.leading_dimension != expected->leading_dimension))) {
            fail_msg("case %zu: got readable %d, transposed %d, leading dimension %d", i,
                     actual.readable, actual.transposed, (int)actual.leading_dimension);
        }
    }
}

/* Whether element (r, c) of all rows x cols lies at r * leading + c. */
static bool reads_rows(const attni_matrix *matrix, int64_t rows, int64_t cols, int64_t leading) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            if (r * leading + c != r * matrix->row_stride + c * matrix->col_stride) {
                return false;
            }
        }
    }
    return leading >= 1 && leading >= cols;
}

static bool can_be_read_in_rows(const attni_matrix *matrix, int64_t rows, int64_t cols) {
    for (int64_t leading = 1; leading < 30; ++leading) {
        if (reads_rows(matrix, rows, cols, leading)) {
            return true;
        }
    }
    return false;
}

static attni_matrix turned(const attni_matrix *matrix) {
    return (attni_matrix){matrix->data, matrix->batch_stride, matrix->col_stride,
                          matrix->row_stride};
}

static void check_definition(const attni_matrix *matrix, int64_t rows, int64_t cols) {
    const attni_matrix other_way = turned(matrix);
    const attni_blas_layout layout = attni_blas_layout_of(matrix, rows, cols);
    const bool can =
        can_be_read_in_rows(matrix, rows, cols) || can_be_read_in_rows(&other_way, cols, rows);
    const bool right = layout.transposed
                           ? reads_rows(&other_way, cols, rows, layout.leading_dimension)
                           : reads_rows(matrix, rows, cols, layout.leading_dimension);
    if (layout.readable != can || (can && !right)) {
        fail_msg(
            "%lld x %lld by (%lld, %lld): got readable %d, transposed %d, leading dimension %d",
            (long long)rows, (long long)cols, (long long)matrix->row_stride,
            (long long)matrix->col_stride, layout.readable, layout.transposed,
            (int)layout.leading_dimension);
    }
}

static void layout_of_every_small_matrix_reads_its_elements(void **state) {
    (void)state;
    for (int64_t rows = 1; rows <= 4; ++rows) {
        for (int64_t cols = 1; cols <= 4; ++cols) {
            for (int64_t row_stride = -6; row_stride <= 12; ++row_stride) {
                for (int64_t col_stride = -6; col_stride <= 12; ++col_stride) {
                    const attni_matrix matrix = {NULL, 0, row_stride, col_stride};
                    check_definition(&matrix, rows, cols);
                }
            }
        }
    }
}

/* Parts of a readable matrix are readable, the same way round or the other: pieces never need more
 * scratch than the whole. */
static void layout_of_a_part_is_readable_if_the_whole_is(void **state) {
    (void)state;
    random_state random = random_seeded(111);
    for (int i = 0; i < 100000; ++i) {
        const attni_matrix matrix = {NULL, 0, random_between(&random, -1, 9),
                                     random_between(&random, -1, 9)};
        const int64_t rows = random_between(&random, 1, 6);
        const int64_t cols = random_between(&random, 1, 6);
        if (attni_blas_layout_of(&matrix, rows, cols).readable) {
            assert_true(attni_blas_layout_of(&matrix, random_between(&random, 1, rows),
                                             random_between(&random, 1, cols))
                            .readable);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_of_usual_matrices_is_as_listed),
        cmocka_unit_test(layout_of_every_small_matrix_reads_its_elements),
        cmocka_unit_test(layout_of_a_part_is_readable_if_the_whole_is),
    };
    return cmocka_run_group_tests_name("gemm_layout", tests, NULL, NULL);
}
