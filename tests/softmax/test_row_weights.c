/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_weights.c: the normalisers on one row, keys and extra columns together, against long
 * double; with sinks, empty rows, NaN and infinities.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/sdpa.h>

#include "kernels/kernel_select.h"
#include "softmax/row_weights.h"
#include "support/random.h"
#include "tensor/element.h"

enum { MOST = 300 };

/* A row of `num_keys` + `num_extra` scores, the extra ones behind. */
struct row_case {
    int32_t dtype;
    const attni_row_kernels *kernels;
    int64_t num_keys;
    int64_t num_extra;
    double scores[MOST];
    const double *sink;
    double weights[MOST];
    attni_row_result result;
};

typedef void (*row_check)(struct row_case *row, random_state *random);

static double smallest_normal(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MIN : DBL_MIN;
}

static double unit_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? 0x1p-24 : 0x1p-53;
}

static int64_t count_of(const struct row_case *row) {
    return row->num_keys + row->num_extra;
}

/* Scores are rounded to the row's type first. */
static void normalize(struct row_case *row, int32_t normalizer) {
    char keys[MOST * 8 + 1];
    char extra[MOST * 8 + 1];
    for (int64_t j = 0; j < count_of(row); ++j) {
        char *place = j < row->num_keys ? keys + 1 : extra + 1;
        const int64_t at = j < row->num_keys ? j : j - row->num_keys;
        attni_write_real(place, at, row->dtype, row->scores[j]);
        row->scores[j] = attni_read_real(place, at, row->dtype);
    }
    const attni_row both = {{keys + 1, row->num_keys}, {extra + 1, row->num_extra}};
    row->result = attni_normalize_row(row->kernels, normalizer, &both, row->sink);
    for (int64_t j = 0; j < count_of(row); ++j) {
        row->weights[j] = j < row->num_keys
                              ? attni_read_real(keys + 1, j, row->dtype)
                              : attni_read_real(extra + 1, j - row->num_keys, row->dtype);
    }
}

static void for_all_kernels(row_check check, uint64_t seed) {
    for (int32_t set = 0; attni_kernel_set_at(set) != NULL; ++set) {
        for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
            static struct row_case row;
            random_state random = random_seeded(seed);
            row = (struct row_case){.dtype = dtype,
                                    .kernels = attni_kernels_of(attni_kernel_set_at(set), dtype)};
            check(&row, &random);
        }
    }
}

static void draw_row(struct row_case *row, random_state *random, double widest) {
    static const int64_t counts[] = {0, 1, 2, 3, 5, 17, 64, 129, 250};
    row->num_keys = counts[random_between(random, 0, 8)];
    row->num_extra = random_between(random, 0, 3) == 0 ? random_between(random, 1, 2) : 0;
    for (int64_t j = 0; j < count_of(row); ++j) {
        const bool excluded = random_between(random, 0, 3) == 0;
        row->scores[j] =
            excluded ? -(double)INFINITY : (double)(float)random_real(random, -widest, widest);
    }
}

/* ---- softmax ---- */

static void fail_weight(const struct row_case *row, int64_t j, long double expected) {
    fail_msg("%lld keys, %lld extra, sink %g, score %lld is %g: expected %.10Lg, got %.10g",
             (long long)row->num_keys, (long long)row->num_extra,
             row->sink != NULL ? *row->sink : NAN, (long long)j, row->scores[j], expected,
             row->weights[j]);
}

/* The definition: exp(score - lse), lse the logarithm of the sum of the exponentials, sink
 * included. */
static void assert_softmax(const struct row_case *row) {
    long double top = row->sink != NULL ? (long double)*row->sink : -(long double)INFINITY;
    bool is_empty = true;
    for (int64_t j = 0; j < count_of(row); ++j) {
        top = fmaxl(top, (long double)row->scores[j]);
        is_empty = is_empty && row->scores[j] == -(double)INFINITY;
    }
    long double sum =
        row->sink != NULL && top > -(long double)INFINITY ? expl((long double)*row->sink - top) : 0;
    for (int64_t j = 0; j < count_of(row); ++j) {
        sum += row->scores[j] == -(double)INFINITY ? 0 : expl((long double)row->scores[j] - top);
    }
    assert_int_equal(row->result.is_empty, is_empty);
    const long double unit = (long double)unit_of(row->dtype);
    for (int64_t j = 0; j < count_of(row); ++j) {
        const long double distance = (long double)row->scores[j] - top;
        const long double expected = row->scores[j] == -(double)INFINITY ? 0 : expl(distance) / sum;
        /* Rounding the difference, exp, the sum and the division; what is below the smallest normal
         * number may vanish. */
        const long double bound =
            expected == 0
                ? 0
                : expected * unit * (2 * fabsl(distance) + 16 + (long double)count_of(row)) +
                      (long double)smallest_normal(row->dtype);
        if (!(fabsl((long double)row->weights[j] - expected) <= bound)) {
            fail_weight(row, j, expected);
        }
    }
    const long double lse = sum == 0 ? -(long double)INFINITY : top + logl(sum);
    const long double bound = unit * (16 + (long double)count_of(row) + 4 * fabsl(lse));
    if (!((long double)row->result.lse == lse ||
          fabsl((long double)row->result.lse - lse) <= bound)) {
        fail_msg("lse: expected %.12Lg, got %.12g", lse, row->result.lse);
    }
}

static void check_softmax(struct row_case *row, random_state *random) {
    static const double widths[] = {1, 10, 100, 30000};
    static const double sinks[] = {0, 3.5, -20, 1000, -INFINITY, -1e30};
    for (int i = 0; i < 1500; ++i) {
        draw_row(row, random, widths[i % 4]);
        row->sink = i % 2 == 0 ? NULL : &sinks[random_between(random, 0, 5)];
        /* A sink is a number of the row's type, as the scores are. */
        const double rounded = row->sink == NULL ? 0 : (double)(float)*row->sink;
        row->sink = row->sink == NULL ? NULL : &rounded;
        normalize(row, ATTN_NORMALIZER_SOFTMAX);
        assert_softmax(row);
    }
}

static void softmax_of_any_row_is_within_its_roundings(void **state) {
    (void)state;
    for_all_kernels(check_softmax, 151);
}

/* Rows without keys, and rows all of whose keys are excluded. */
static void check_empty_softmax(struct row_case *row, random_state *random) {
    static const double sink = 2.5;
    for (int64_t num_keys = 0; num_keys <= 20; ++num_keys) {
        row->num_keys = num_keys;
        row->num_extra = random_between(random, 0, 2);
        for (int64_t j = 0; j < count_of(row); ++j) {
            row->scores[j] = -(double)INFINITY;
        }
        row->sink = NULL;
        normalize(row, ATTN_NORMALIZER_SOFTMAX);
        assert_true(row->result.is_empty);
        assert_true(row->result.lse == -(double)INFINITY);
        row->sink = &sink;
        normalize(row, ATTN_NORMALIZER_SOFTMAX);
        assert_true(row->result.is_empty);
        assert_true(row->result.lse == 2.5);
        for (int64_t j = 0; j < count_of(row); ++j) {
            assert_true(row->weights[j] == 0);
        }
    }
}

static void softmax_of_an_empty_row_is_zero(void **state) {
    (void)state;
    for_all_kernels(check_empty_softmax, 152);
}

/* Mathematically huge scores of any sign do not overflow. */
static void check_huge_softmax(struct row_case *row, random_state *random) {
    (void)random;
    const double huge = row->dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MAX : DBL_MAX;
    row->num_keys = 3;
    row->scores[0] = huge;
    row->scores[1] = -huge;
    row->scores[2] = huge;
    normalize(row, ATTN_NORMALIZER_SOFTMAX);
    assert_true(row->weights[0] == 0.5 && row->weights[1] == 0 && row->weights[2] == 0.5);
    row->scores[0] = row->scores[2] = -huge;
    normalize(row, ATTN_NORMALIZER_SOFTMAX);
    assert_false(row->result.is_empty);
    for (int j = 0; j < 3; ++j) {
        assert_true(fabs(row->weights[j] - 1.0 / 3) < 1e-7);
    }
}

static void softmax_of_huge_scores_is_finite(void **state) {
    (void)state;
    for_all_kernels(check_huge_softmax, 153);
}

/* Every place of a NaN or +inf, among finite scores, among excluded ones and among the extra
 * columns. */
static void check_not_finite_softmax(struct row_case *row, random_state *random) {
    static const double sink = 1;
    for (int i = 0; i < 400; ++i) {
        row->num_keys = random_between(random, 1, 20);
        row->num_extra = random_between(random, 0, 2);
        for (int64_t j = 0; j < count_of(row); ++j) {
            row->scores[j] = i % 3 == 0 ? -(double)INFINITY : random_real(random, -5, 5);
        }
        row->scores[random_between(random, 0, count_of(row) - 1)] =
            i % 2 == 0 ? NAN : (double)INFINITY;
        row->sink = random_between(random, 0, 1) == 0 ? NULL : &sink;
        normalize(row, ATTN_NORMALIZER_SOFTMAX);
        assert_false(row->result.is_empty);
        for (int64_t j = 0; j < count_of(row); ++j) {
            if (row->scores[j] != -(double)INFINITY && !isnan(row->weights[j])) {
                fail_weight(row, j, (long double)NAN);
            }
        }
    }
}

static void softmax_of_nan_or_infinity_is_nan(void **state) {
    (void)state;
    for_all_kernels(check_not_finite_softmax, 154);
}

/* ---- sigmoid ---- */

static void check_sigmoid(struct row_case *row, random_state *random) {
    for (int i = 0; i < 500; ++i) {
        draw_row(row, random, i % 2 == 0 ? 20 : 60);
        normalize(row, ATTN_NORMALIZER_SIGMOID);
        bool is_empty = true;
        for (int64_t j = 0; j < count_of(row); ++j) {
            const long double expected = 1 / (1 + expl(-(long double)row->scores[j]));
            is_empty = is_empty && row->scores[j] == -(double)INFINITY;
            if (!(fabsl((long double)row->weights[j] - expected) <=
                  expected * 8 * (long double)unit_of(row->dtype))) {
                fail_weight(row, j, expected);
            }
        }
        assert_int_equal(row->result.is_empty, is_empty);
    }
}

static void sigmoid_of_any_row_is_each_scores_own(void **state) {
    (void)state;
    for_all_kernels(check_sigmoid, 155);
}

static void check_nan_sigmoid(struct row_case *row, random_state *random) {
    (void)random;
    row->num_keys = 3;
    row->scores[0] = -(double)INFINITY;
    row->scores[1] = NAN;
    row->scores[2] = -(double)INFINITY;
    normalize(row, ATTN_NORMALIZER_SIGMOID);
    assert_false(row->result.is_empty);
    assert_true(row->weights[0] == 0 && isnan(row->weights[1]) && row->weights[2] == 0);
}

static void sigmoid_of_nan_is_nan_alone(void **state) {
    (void)state;
    for_all_kernels(check_nan_sigmoid, 156);
}

/* ---- none ---- */

static void check_plain(struct row_case *row, random_state *random) {
    for (int i = 0; i < 300; ++i) {
        draw_row(row, random, 5);
        for (int64_t j = 0; j < count_of(row); ++j) {
            const bool keeps = i % 3 == 0 || (i % 3 == 1 && j == count_of(row) - 1);
            row->scores[j] = keeps && isfinite(row->scores[j]) ? row->scores[j] : 0.0;
        }
        normalize(row, ATTN_NORMALIZER_LINEAR);
        bool is_zero = true;
        for (int64_t j = 0; j < count_of(row); ++j) {
            is_zero = is_zero && row->scores[j] == 0;
            assert_true(row->weights[j] == row->scores[j]);
        }
        assert_int_equal(row->result.is_empty, is_zero);
    }
    row->num_keys = 2;
    row->num_extra = 0;
    row->scores[0] = 0;
    row->scores[1] = NAN;
    normalize(row, ATTN_NORMALIZER_LINEAR);
    assert_false(row->result.is_empty);
}

static void none_keeps_the_scores(void **state) {
    (void)state;
    for_all_kernels(check_plain, 157);
}

static void excluded_score_weighs_nothing_in_every_normaliser(void **state) {
    (void)state;
    assert_true(attni_excluded_score(ATTN_NORMALIZER_SOFTMAX) == -(double)INFINITY);
    assert_true(attni_excluded_score(ATTN_NORMALIZER_SIGMOID) == -(double)INFINITY);
    assert_true(attni_excluded_score(ATTN_NORMALIZER_LINEAR) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_of_any_row_is_within_its_roundings),
        cmocka_unit_test(softmax_of_an_empty_row_is_zero),
        cmocka_unit_test(softmax_of_huge_scores_is_finite),
        cmocka_unit_test(softmax_of_nan_or_infinity_is_nan),
        cmocka_unit_test(sigmoid_of_any_row_is_each_scores_own),
        cmocka_unit_test(sigmoid_of_nan_is_nan_alone),
        cmocka_unit_test(none_keeps_the_scores),
        cmocka_unit_test(excluded_score_weighs_nothing_in_every_normaliser),
    };
    return cmocka_run_group_tests_name("row_weights", tests, NULL, NULL);
}
