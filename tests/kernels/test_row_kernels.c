/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_kernels.c: the kernels that look at one row or change it, against plain loops, over all
 * lengths that matter, at any alignment, with special values among the data, between pages that may
 * not be touched.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "row_setting.h"

/* ---- kernels that only look ---- */

static void check_max(struct row_setting *setting) {
    double expected = -(double)INFINITY;
    for (int64_t j = 0; j < setting->n; ++j) {
        expected = setting->before[j] > expected ? setting->before[j] : expected;
    }
    assert_true(setting->choice.kernels->max(setting->row, setting->n) == expected);
    assert_unchanged(setting);
}

static void max_of_any_row_ignores_nan(void **state) {
    (void)state;
    for_every_row(check_max);
}

/* The largest at each place, all others NaN or smaller. */
static void check_max_places(struct row_setting *setting) {
    const attni_row_kernels *kernels = setting->choice.kernels;
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = j % 2 == 0 ? NAN : -3e30;
    }
    set_row(setting);
    assert_true(kernels->max(setting->row, setting->n) ==
                (setting->n > 1 ? rounded_to(setting->choice.dtype, -3e30) : -(double)INFINITY));
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(setting->row, j, setting->choice.dtype, -2.5);
        if (kernels->max(setting->row, setting->n) != -2.5) {
            fail_element(setting, j, -2.5, kernels->max(setting->row, setting->n));
        }
        row_set(setting->row, j, setting->choice.dtype, setting->before[j]);
    }
}

static void max_is_found_at_every_place(void **state) {
    (void)state;
    for_every_row(check_max_places);
}

static void check_nan_places(struct row_setting *setting) {
    const attni_row_kernels *kernels = setting->choice.kernels;
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = isnan(setting->before[j]) ? (double)INFINITY : setting->before[j];
    }
    set_row(setting);
    assert_false(kernels->has_nan(setting->row, setting->n));
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(setting->row, j, setting->choice.dtype, j % 2 == 0 ? NAN : -NAN);
        if (!kernels->has_nan(setting->row, setting->n)) {
            fail_element(setting, j, 1, 0);
        }
        row_set(setting->row, j, setting->choice.dtype, setting->before[j]);
    }
    assert_unchanged(setting);
}

static void has_nan_finds_it_at_every_place(void **state) {
    (void)state;
    for_every_row(check_nan_places);
}

static void check_zero_places(struct row_setting *setting) {
    const attni_row_kernels *kernels = setting->choice.kernels;
    static const double others[] = {NAN, 0x1p-149, -1, -(double)INFINITY};
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = random_between(setting->random, 0, 1) == 0 ? 0.0 : -0.0;
    }
    set_row(setting);
    assert_true(kernels->is_zero(setting->row, setting->n));
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(setting->row, j, setting->choice.dtype, others[j % 4]);
        if (kernels->is_zero(setting->row, setting->n)) {
            fail_element(setting, j, 0, 1);
        }
        row_set(setting->row, j, setting->choice.dtype, setting->before[j]);
    }
    assert_unchanged(setting);
}

static void is_zero_finds_anything_else_at_every_place(void **state) {
    (void)state;
    for_every_row(check_zero_places);
}

/* ---- kernels of one rounding ---- */

static void check_scale(struct row_setting *setting) {
    static const double factors[] = {0.1, -3.0, 0.0, 1.0, 1e-30};
    const double factor = factors[random_between(setting->random, 0, 4)];
    setting->choice.kernels->scale(setting->row, setting->n, factor);
    for (int64_t j = 0; j < setting->n; ++j) {
        assert_element(setting, j, product_in(setting->choice.dtype, setting->before[j], factor));
    }
}

static void scale_is_one_product(void **state) {
    (void)state;
    for_every_row(check_scale);
}

/* ---- kernels of several roundings ---- */

static void check_alibi(struct row_setting *setting) {
    static const double distances[] = {0, 3, -1, 500, -1000, 1e6, 0x1p53, -0x1p62};
    static const double slopes[] = {0.25, 1.0 / 3, -0.5, 0, 1e-5};
    const int32_t dtype = setting->choice.dtype;
    const double distance = distances[random_between(setting->random, 0, 7)];
    const double slope = rounded_to(dtype, slopes[random_between(setting->random, 0, 4)]);
    setting->choice.kernels->alibi(setting->row, setting->n, slope, distance);
    for (int64_t j = 0; j < setting->n; ++j) {
        const double before = setting->before[j];
        const long double penalty =
            (long double)slope * fabsl((long double)distance - (long double)j);
        const long double exact = (long double)before - penalty;
        const double actual = row_get(setting->row, j, dtype);
        if (isnan(before) || isinf(before) || isinf(rounded_to(dtype, (double)exact))) {
            assert_element(setting, j, rounded_to(dtype, (double)exact));
            continue;
        }
        const long double bound =
            (long double)unit_roundoff(dtype) * (4 * fabsl(penalty) + fabsl(exact)) + 0x1p-1074L;
        if (!(fabsl((long double)actual - exact) <= bound)) {
            fail_element(setting, j, (double)exact, actual);
        }
    }
}

static void alibi_subtracts_slope_times_distance(void **state) {
    (void)state;
    for_every_row(check_alibi);
}

/* exp(row - max) within 2 units, or 0 below the smallest normal number, and the sum of what was
 * stored. */
static void check_exp(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    const double max = rounded_to(dtype, random_real(setting->random, -20, 20));
    for (int64_t j = 0; j < setting->n; ++j) {
        const bool is_large = !(setting->before[j] <= max) && !isnan(setting->before[j]);
        setting->before[j] = is_large
                                 ? rounded_to(dtype, max - random_real(setting->random, 0, 100))
                                 : setting->before[j];
    }
    set_row(setting);
    const double sum = setting->choice.kernels->exp_sum(setting->row, setting->n, max);
    long double exact_sum = 0;
    for (int64_t j = 0; j < setting->n; ++j) {
        const double actual = row_get(setting->row, j, dtype);
        const double argument = sum_in(dtype, setting->before[j], -max);
        exact_sum += (long double)actual;
        if (isnan(argument)) {
            assert_element(setting, j, NAN);
            continue;
        }
        const long double exact = expl((long double)argument);
        const bool vanishes = exact < (long double)smallest_normal(dtype) && actual == 0;
        if (!vanishes && !(error_in_ulp(dtype, actual, exact) <= 2)) {
            fail_element(setting, j, (double)exact, actual);
        }
    }
    /* At most 1024 / 4 additions in the row's type. */
    const long double bound = 256 * (long double)unit_roundoff(dtype) * exact_sum;
    if (!(fabsl((long double)sum - exact_sum) <= bound) &&
        !(isnan(sum) && exact_sum != exact_sum)) {
        fail_msg("%s, %lld elements: expected the sum %.20Lg, got %.20g",
                 choice_text(&setting->choice), (long long)setting->n, exact_sum, sum);
    }
}

static void exp_sum_of_any_row_is_within_two_units(void **state) {
    (void)state;
    for_every_row(check_exp);
}

static void check_special_exp(struct row_setting *setting) {
    const attni_row_kernels *kernels = setting->choice.kernels;
    static const double values[] = {-(double)INFINITY, 7, 0, (double)INFINITY, NAN};
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = values[j % 5];
    }
    set_row(setting);
    const double sum = kernels->exp_sum(setting->row, setting->n, (double)INFINITY);
    for (int64_t j = 0; j < setting->n; ++j) {
        assert_element(setting, j, values[j % 5] < (double)INFINITY ? 0 : NAN);
    }
    assert_true(setting->n > 3 ? isnan(sum) : sum == 0);
}

static void exp_sum_with_an_infinite_maximum_is_0_or_nan(void **state) {
    (void)state;
    for_every_row(check_special_exp);
}

/* exp is exp_sum without a maximum and a sum. */
static void check_exp_alone(struct row_setting *setting) {
    static char expected[ROW_MOST * sizeof(double)];
    const attni_row_kernels *kernels = setting->choice.kernels;
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = setting->before[j] > 0 ? -setting->before[j] : setting->before[j];
        row_set(expected, j, setting->choice.dtype, setting->before[j]);
    }
    set_row(setting);
    kernels->exp_sum(expected, setting->n, 0);
    kernels->exp(setting->row, setting->n);
    for (int64_t j = 0; j < setting->n; ++j) {
        assert_element(setting, j, row_get(expected, j, setting->choice.dtype));
    }
}

static void exp_of_any_row_is_that_of_exp_sum(void **state) {
    (void)state;
    for_every_row(check_exp_alone);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_of_any_row_ignores_nan),
        cmocka_unit_test(max_is_found_at_every_place),
        cmocka_unit_test(has_nan_finds_it_at_every_place),
        cmocka_unit_test(is_zero_finds_anything_else_at_every_place),
        cmocka_unit_test(scale_is_one_product),
        cmocka_unit_test(alibi_subtracts_slope_times_distance),
        cmocka_unit_test(exp_sum_of_any_row_is_within_two_units),
        cmocka_unit_test(exp_sum_with_an_infinite_maximum_is_0_or_nan),
        cmocka_unit_test(exp_of_any_row_is_that_of_exp_sum),
    };
    return cmocka_run_group_tests_name("row_kernels", tests, NULL, NULL);
}
