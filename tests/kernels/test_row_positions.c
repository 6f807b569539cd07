/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_positions.c: what becomes of an element depends neither on its place nor on the row's
 * length: the same bits everywhere.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "kernel_choice.h"

enum { MOST = 1025 };

/* Runs one kernel on a row whose element `at` is the one looked at. */
typedef void (*kernel_run)(const kernel_choice *choice, char *row, int64_t n, int64_t at);

static char row[MOST * 8 + 64];
static char operand[MOST * 2 * 8 + 64];

static void run_exp(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    (void)at;
    choice->kernels->exp_sum(data, n, 11.0);
}

static void run_scale(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    (void)at;
    choice->kernels->scale(data, n, 1.0 / 3);
}

static void run_softcap(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    (void)at;
    choice->kernels->softcap(data, n, 3.3);
}

static void run_sigmoid(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    (void)at;
    choice->kernels->sigmoid(data, n);
}

/* The element is always 5 keys away. */
static void run_alibi(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    choice->kernels->alibi(data, n, 0.7, (double)(at + (at % 2 == 0 ? 5 : -5)));
}

static void run_bias(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    const int64_t stride = at % 2 + 1;
    for (int64_t j = 0; j < n; ++j) {
        row_set(operand, j * stride, choice->dtype, 0.1);
    }
    choice->kernels->add_bias(data, n, operand, stride, choice->dtype, 0);
}

static void run_accumulate(const kernel_choice *choice, char *data, int64_t n, int64_t at) {
    const int64_t stride = at % 2 + 1;
    for (int64_t j = 0; j < n; ++j) {
        row_set(operand, j * stride, choice->dtype, 1.0 / 7);
    }
    choice->kernels->accumulate(data, operand, stride, n, 0.3);
}

static double result_at(const kernel_choice *choice, kernel_run run, double value, int64_t at,
                        int64_t n, int shift) {
    char *data = row + shift;
    for (int64_t j = 0; j < n; ++j) {
        row_set(data, j, choice->dtype, j == at ? value : 0.25 * (double)(j % 40));
    }
    run(choice, data, n, at);
    return row_get(data, at, choice->dtype);
}

static void assert_same_everywhere(const kernel_choice *choice, kernel_run run, double value) {
    const double expected = result_at(choice, run, value, 0, 1, 0);
    int64_t n;
    for (int length = 1; (n = row_length(length)) > 0; ++length) {
        const int64_t step = n < 100 ? 1 : 61;
        for (int64_t i = 0; i < n; i += step) {
            const int64_t at = length % 2 == 0 ? i : n - 1 - i;
            const double actual = result_at(choice, run, value, at, n, length % 9);
            if (!is_same_number(actual, expected)) {
                fail_msg("%s: %a becomes %a alone, %a at %lld of %lld", choice_text(choice), value,
                         expected, actual, (long long)at, (long long)n);
            }
        }
    }
}

/* Values whose results have no short mantissa; a fused operation where the others have none would
 * show. */
static void check_kernel(kernel_run run) {
    kernel_choice choice;
    random_state random = random_seeded(71);
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        for (int i = 0; i < 12; ++i) {
            const double value = i == 0 ? -0.0 : i == 1 ? 1e-3 : random_real(&random, -30, 10);
            assert_same_everywhere(&choice, run, rounded_to(choice.dtype, value));
        }
    }
}

static void exp_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_exp);
}

static void scale_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_scale);
}

static void softcap_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_softcap);
}

static void sigmoid_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_sigmoid);
}

static void alibi_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_alibi);
}

static void add_bias_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_bias);
}

static void accumulate_is_the_same_everywhere(void **state) {
    (void)state;
    check_kernel(run_accumulate);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_the_same_everywhere),
        cmocka_unit_test(scale_is_the_same_everywhere),
        cmocka_unit_test(softcap_is_the_same_everywhere),
        cmocka_unit_test(sigmoid_is_the_same_everywhere),
        cmocka_unit_test(alibi_is_the_same_everywhere),
        cmocka_unit_test(add_bias_is_the_same_everywhere),
        cmocka_unit_test(accumulate_is_the_same_everywhere),
    };
    return cmocka_run_group_tests_name("row_positions", tests, NULL, NULL);
}
