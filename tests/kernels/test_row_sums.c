/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_sums.c: the sum of exponentials is as good for a million elements as for a thousand.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "kernel_choice.h"

enum { MOST = 1000003 };

static char *row;

static int make_row(void **state) {
    (void)state;
    row = malloc((size_t)MOST * 8);
    return row == NULL;
}

static int free_row(void **state) {
    (void)state;
    free(row);
    return 0;
}

/* Roundings of the row's type that a sum may be off by: the additions within a block of 1024
 * elements, a quarter of them for float32's least number of lanes and half of them for float64's.
 * Blocks are added in double with their errors, which adds two roundings to float64 at most. */
static double allowed_roundings(const kernel_choice *choice) {
    return choice->dtype == ATTN_DTYPE_FLOAT32 ? 256 : 514;
}

static double relative_error(const kernel_choice *choice, int64_t n, double sum) {
    long double exact = 0;
    for (int64_t j = 0; j < n; ++j) {
        exact += (long double)row_get(row, j, choice->dtype);
    }
    return (double)(fabsl((long double)sum - exact) / exact);
}

static void sum_of_ones_is_exact(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 1000, 1024, 1025, 65537, 1000000, MOST};
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
            for (int64_t j = 0; j < lengths[i]; ++j) {
                row_set(row, j, choice.dtype, 3.25);
            }
            const double sum = choice.kernels->exp_sum(row, lengths[i], 3.25);
            if (sum != (double)lengths[i]) {
                fail_msg("%s: %lld ones add up to %.17g", choice_text(&choice),
                         (long long)lengths[i], sum);
            }
        }
    }
}

/* Equal elements are the worst case: every addition rounds the same way. */
static void sum_error_does_not_grow_with_float32_rows(void **state) {
    (void)state;
    static const int64_t lengths[] = {1000, 10000, 100000, 1000000};
    static const double arguments[] = {-0.7, -1.3, -2.9, -5.1, -9.7};
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        double worst[4] = {0};
        for (int i = 0; i < 20; ++i) {
            const int64_t n = lengths[i / 5];
            for (int64_t j = 0; j < n; ++j) {
                row_set(row, j, choice.dtype, arguments[i % 5]);
            }
            const double sum = choice.kernels->exp_sum(row, n, 0);
            worst[i / 5] =
                fmax(worst[i / 5], relative_error(&choice, n, sum) / unit_roundoff(choice.dtype));
        }
        print_message("%s: sums of 1e3, 1e4, 1e5, 1e6 equal terms are off by %.1f, %.1f, %.1f, "
                      "%.1f roundings\n",
                      choice_text(&choice), worst[0], worst[1], worst[2], worst[3]);
        for (int i = 0; i < 4; ++i) {
            assert_true(worst[i] <= allowed_roundings(&choice));
        }
    }
}

static void sum_of_random_terms_is_as_good(void **state) {
    (void)state;
    kernel_choice choice;
    random_state random = random_seeded(81);
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        for (int64_t j = 0; j < MOST; ++j) {
            row_set(row, j, choice.dtype, random_real(&random, -20, 0));
        }
        const double sum = choice.kernels->exp_sum(row, MOST, 0);
        const double error = relative_error(&choice, MOST, sum) / unit_roundoff(choice.dtype);
        if (error > 16) {
            fail_msg("%s: the sum of random terms is off by %.1f roundings", choice_text(&choice),
                     error);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sum_of_ones_is_exact),
        cmocka_unit_test(sum_error_does_not_grow_with_float32_rows),
        cmocka_unit_test(sum_of_random_terms_is_as_good),
    };
    return cmocka_run_group_tests_name("row_sums", tests, make_row, free_row);
}
