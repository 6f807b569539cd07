/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gradient_kernels.c: what gradient_kernels.h promises of a row, element by element, for every
 * set of kernels, type, length and placement.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "row_setting.h"

/* A row of scores, of which every third or so is hidden, and one of gradients, which are anything
 * there. */
typedef struct gradient_rows {
    char *scores;
    char *gradient;
    double score[ROW_MOST];
    double change[ROW_MOST];
} gradient_rows;

static gradient_rows rows;

static bool is_hidden(int64_t j) {
    return rows.score[j] == -(double)INFINITY;
}

/* `highest`: of the scores, `width` below which the lowest is. */
static void set_rows(struct row_setting *setting, double highest, double width) {
    static const double strange[] = {NAN, INFINITY, -INFINITY, DBL_MAX, 0, 3.5};
    const int32_t dtype = setting->choice.dtype;
    for (int64_t j = 0; j < setting->n; ++j) {
        const bool hides = random_bits(setting->random) % 3 == 0;
        const double score = random_real(setting->random, highest - width, highest);
        const double change = random_real(setting->random, -4, 4);
        rows.score[j] = hides ? -(double)INFINITY : rounded_to(dtype, score);
        rows.change[j] = rounded_to(dtype, hides ? strange[j % 6] : change);
        setting->before[j] = rows.score[j];
    }
    set_row(setting);
    rows.scores = setting->row;
    rows.gradient = guarded_place(&setting->operand_block, (size_t)(setting->n * real_bytes(dtype)),
                                  setting->placement);
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(rows.gradient, j, dtype, rows.change[j]);
    }
}

/* One result, from the weight that the kernel has made: within some roundings, each relative. */
static void assert_gradient(const struct row_setting *setting, int64_t j, long double exact,
                            int roundings) {
    const int32_t dtype = setting->choice.dtype;
    const double actual = row_get(rows.gradient, j, dtype);
    const long double allowed =
        roundings * (long double)unit_roundoff(dtype) * fabsl(exact) + smallest_normal(dtype);
    if (!(fabsl((long double)actual - exact) <= allowed)) {
        fail_element(setting, j, (double)exact, actual);
    }
}

static void assert_weight(const struct row_setting *setting, int64_t j, long double exact,
                          double units) {
    const int32_t dtype = setting->choice.dtype;
    const double actual = row_get(rows.scores, j, dtype);
    const bool vanishes = actual == 0 && exact < (long double)smallest_normal(dtype);
    if (!vanishes && !(error_in_ulp(dtype, actual, exact) <= units)) {
        fail_element(setting, j, (double)exact, actual);
    }
}

/* Whatever the gradient was. */
static void assert_nothing(const struct row_setting *setting, int64_t j) {
    assert_element(setting, j, 0);
    const double actual = row_get(rows.gradient, j, setting->choice.dtype);
    if (!is_same_number(actual, 0)) {
        fail_element(setting, j, 0, actual);
    }
}

/* exp within 2 units of the difference as the type has it; gradient - mean, two products more. */
static void check_softmax(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    const double lse = rounded_to(dtype, 7.3), mean = rounded_to(dtype, -1.7);
    const double factor = rounded_to(dtype, 0.3);
    set_rows(setting, lse, dtype == ATTN_DTYPE_FLOAT32 ? 100 : 720);
    setting->choice.gradient->softmax(rows.scores, rows.gradient, setting->n, lse, mean, factor);
    for (int64_t j = 0; j < setting->n; ++j) {
        if (is_hidden(j)) {
            assert_nothing(setting, j);
            continue;
        }
        assert_weight(setting, j, expl((long double)sum_in(dtype, rows.score[j], -lse)), 2);
        const long double weight = row_get(rows.scores, j, dtype);
        assert_gradient(setting, j, factor * weight * ((long double)rows.change[j] - mean), 3);
    }
    guarded_check(&setting->operand_block, choice_text(&setting->choice));
}

static void check_sigmoid(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    const double factor = rounded_to(dtype, -0.7);
    set_rows(setting, 15, 45);
    setting->choice.gradient->sigmoid(rows.scores, rows.gradient, setting->n, factor);
    for (int64_t j = 0; j < setting->n; ++j) {
        if (is_hidden(j)) {
            assert_nothing(setting, j);
            continue;
        }
        assert_weight(setting, j, 1 / (1 + expl(-(long double)rows.score[j])), 4);
        const long double weight = row_get(rows.scores, j, dtype);
        assert_gradient(setting, j, factor * (weight * (1 - weight)) * rows.change[j], 4);
    }
    guarded_check(&setting->operand_block, choice_text(&setting->choice));
}

/* Weights are the scores, bit by bit; a gradient is one product. */
static void check_linear(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    const double factor = rounded_to(dtype, 1.3);
    set_rows(setting, 1000, 2000);
    setting->choice.gradient->linear(rows.scores, rows.gradient, setting->n, factor);
    for (int64_t j = 0; j < setting->n; ++j) {
        if (is_hidden(j)) {
            assert_nothing(setting, j);
            continue;
        }
        assert_element(setting, j, rows.score[j]);
        const double actual = row_get(rows.gradient, j, dtype);
        if (!is_same_number(actual, product_in(dtype, factor, rows.change[j]))) {
            fail_element(setting, j, product_in(dtype, factor, rows.change[j]), actual);
        }
    }
    guarded_check(&setting->operand_block, choice_text(&setting->choice));
}

/* (capped / cap)^2 is at most 1, so that what it is taken off from 1 is off by 3 roundings of 1. A
 * gradient of 0 is of what is hidden, where capped may be anything. */
static void check_softcap(struct row_setting *setting) {
    static const double anything[] = {NAN, INFINITY, -INFINITY};
    const int32_t dtype = setting->choice.dtype;
    const double cap = rounded_to(dtype, 1.7);
    for (int64_t j = 0; j < setting->n; ++j) {
        const bool hides = j % 5 == 2;
        rows.score[j] =
            hides ? anything[j % 3] : rounded_to(dtype, random_real(setting->random, -cap, cap));
        rows.change[j] = hides ? 0 : rounded_to(dtype, random_real(setting->random, -4, 4));
        setting->before[j] = rows.score[j];
    }
    set_row(setting);
    rows.gradient = guarded_place(&setting->operand_block, (size_t)(setting->n * real_bytes(dtype)),
                                  setting->placement);
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(rows.gradient, j, dtype, rows.change[j]);
    }
    setting->choice.gradient->softcap(rows.gradient, setting->row, setting->n, cap);
    assert_unchanged(setting);
    for (int64_t j = 0; j < setting->n; ++j) {
        const double actual = row_get(rows.gradient, j, dtype);
        const long double share = (long double)rows.score[j] / cap;
        const long double exact = rows.change[j] * (1 - share * share);
        const double allowed = 4 * unit_roundoff(dtype) * fabs(rows.change[j]);
        if (rows.change[j] == 0 ? actual != 0 : !(fabsl((long double)actual - exact) <= allowed)) {
            fail_element(setting, j, (double)exact, actual);
        }
    }
    guarded_check(&setting->operand_block, choice_text(&setting->choice));
}

/* Rows of any numbers: setting->row has before[], the operand rows.change[]. */
static void set_operand(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    rows.gradient = guarded_place(&setting->operand_block, (size_t)(setting->n * real_bytes(dtype)),
                                  setting->placement);
    for (int64_t j = 0; j < setting->n; ++j) {
        rows.change[j] = random_number(setting->random, dtype);
        row_set(rows.gradient, j, dtype, rows.change[j]);
    }
}

static void check_add(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    set_operand(setting);
    setting->choice.gradient->add(setting->row, rows.gradient, setting->n);
    for (int64_t j = 0; j < setting->n; ++j) {
        assert_element(setting, j, sum_in(dtype, setting->before[j], rows.change[j]));
        assert_true(is_same_number(row_get(rows.gradient, j, dtype), rows.change[j]));
    }
    guarded_check(&setting->operand_block, choice_text(&setting->choice));
}

/* Of blocks of 1,024 terms a lane has a quarter at most, of float64 half; each is a product and a
 * sum, and lanes and blocks are added in double. */
static void check_sums(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    const double roundings = dtype == ATTN_DTYPE_FLOAT32 ? 256 + 2 : 512 + 8;
    long double dot = 0, dot_size = 0, sum = 0, sum_size = 0;
    set_operand(setting);
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = rounded_to(dtype, random_real(setting->random, -3, 5));
        rows.change[j] = rounded_to(dtype, random_real(setting->random, -2, 2));
        row_set(rows.gradient, j, dtype, rows.change[j]);
        const long double product = (long double)setting->before[j] * rows.change[j];
        dot += product;
        dot_size += fabsl(product);
        sum += setting->before[j];
        sum_size += fabsl((long double)setting->before[j]);
    }
    set_row(setting);
    const double allowed = roundings * unit_roundoff(dtype);
    const double got_dot = setting->choice.gradient->dot(setting->row, rows.gradient, setting->n);
    const double got_sum = setting->choice.gradient->sum(setting->row, setting->n);
    if (!(fabsl(got_dot - dot) <= allowed * dot_size &&
          fabsl(got_sum - sum) <= allowed * sum_size)) {
        fail_msg("%s, %lld elements: dot %.17g, expected %.17Lg; sum %.17g, expected %.17Lg",
                 choice_text(&setting->choice), (long long)setting->n, got_dot, dot, got_sum, sum);
    }
    assert_unchanged(setting);
    guarded_check(&setting->operand_block, choice_text(&setting->choice));
}

/* With one number that is not, at every place; the largest and the smallest are. */
static void check_is_finite(struct row_setting *setting) {
    static const double not_finite[] = {NAN, INFINITY, -INFINITY};
    const int32_t dtype = setting->choice.dtype;
    const double finite[] = {dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MAX : DBL_MAX,
                             -smallest_normal(dtype) / 4, 0, 1};
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = finite[j % 4];
    }
    set_row(setting);
    assert_true(setting->choice.gradient->is_finite(setting->row, setting->n));
    const int64_t step = setting->n > 66 ? 97 : 1;
    for (int64_t j = 0; j < setting->n; j += step) {
        row_set(setting->row, j, dtype, not_finite[j % 3]);
        if (setting->choice.gradient->is_finite(setting->row, setting->n)) {
            fail_element(setting, j, not_finite[j % 3], finite[j % 4]);
        }
        row_set(setting->row, j, dtype, finite[j % 4]);
    }
    assert_unchanged(setting);
}

static void softmax_has_weights_and_gradients_of_what_is_seen(void **state) {
    (void)state;
    for_every_row(check_softmax);
}

static void sigmoid_has_weights_and_gradients_of_what_is_seen(void **state) {
    (void)state;
    for_every_row(check_sigmoid);
}

static void linear_has_weights_and_gradients_of_what_is_seen(void **state) {
    (void)state;
    for_every_row(check_linear);
}

static void softcap_multiplies_with_its_derivative(void **state) {
    (void)state;
    for_every_row(check_softcap);
}

static void add_rounds_once(void **state) {
    (void)state;
    for_every_row(check_add);
}

static void sums_are_off_by_their_roundings(void **state) {
    (void)state;
    for_every_row(check_sums);
}

static void one_number_that_is_not_finite_is_found(void **state) {
    (void)state;
    for_every_row(check_is_finite);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_has_weights_and_gradients_of_what_is_seen),
        cmocka_unit_test(sigmoid_has_weights_and_gradients_of_what_is_seen),
        cmocka_unit_test(linear_has_weights_and_gradients_of_what_is_seen),
        cmocka_unit_test(softcap_multiplies_with_its_derivative),
        cmocka_unit_test(add_rounds_once),
        cmocka_unit_test(sums_are_off_by_their_roundings),
        cmocka_unit_test(one_number_that_is_not_finite_is_found),
    };
    return cmocka_run_group_tests_name("gradient_kernels", tests, NULL, NULL);
}
