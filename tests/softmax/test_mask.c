/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mask.c: the three kinds of masks against their executable specification in mask.h, and what
 * is accepted as a mask.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/softmax.h>

#include "kernels/kernel_select.h"
#include "softmax/mask.h"
#include "support/random.h"
#include "tensor/element.h"

enum { BYTES = 8192, MOST_COLS = 70 };

static char mask_memory[BYTES];

/* ---- application ---- */

struct application {
    int32_t kind;
    int32_t mask_dtype;
    int32_t row_dtype;
    int64_t stride;
    int64_t offset;
    int64_t n;
    double excluded;
    bool excludes_only; /* attni_mask_exclude, which adds nothing */
};

static int32_t random_float(random_state *random) {
    return (int32_t)random_between(random, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64);
}

static struct application random_application(random_state *random) {
    static const int64_t strides[] = {1, 0, 2, -1};
    struct application item = {
        .kind = (int32_t)random_between(random, ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_EXCLUDE)};
    item.row_dtype = random_float(random);
    const int32_t bias_dtype =
        random_between(random, 0, 1) == 0 ? ATTN_DTYPE_FLOAT32 : item.row_dtype;
    item.mask_dtype = item.kind == ATTN_MASK_ADDITIVE ? bias_dtype : ATTN_DTYPE_BOOL;
    item.excludes_only = random_between(random, 0, 3) == 0;
    item.stride = strides[random_between(random, 0, 3)];
    item.n = random_between(random, 0, MOST_COLS);
    item.offset = random_between(random, 0, 5) + (item.stride < 0 ? MOST_COLS : 0);
    item.excluded = random_between(random, 0, 1) == 0 ? -(double)INFINITY : 0.0;
    return item;
}

static void fill_mask(random_state *random, char *data, int32_t dtype) {
    static const double biases[] = {-INFINITY, -INFINITY, 0,   -1e30,           3.5,
                                    -0.25,     INFINITY,  NAN, (double)FLT_MAX, -(double)FLT_MAX};
    static const char bytes[] = {0, 0, 1, 2, -1};
    for (int64_t i = 0; i < 3 * MOST_COLS; ++i) {
        if (dtype == ATTN_DTYPE_BOOL) {
            data[i] = bytes[random_between(random, 0, 4)];
        } else {
            attni_write_real(data, i, dtype, biases[random_between(random, 0, 9)]);
        }
    }
}

/* The specification, word for word. */
static double specified(const struct application *item, const char *data, int64_t offset,
                        double score) {
    const bool flag = item->mask_dtype == ATTN_DTYPE_BOOL && data[offset] != 0;
    switch (item->kind) {
    case ATTN_MASK_ADDITIVE: {
        const double bias = attni_read_real(data, offset, item->mask_dtype);
        const double sum = item->row_dtype == ATTN_DTYPE_FLOAT32
                               ? (double)((float)score + (float)bias)
                               : score + bias;
        const bool is_beyond = isinf(sum) && isfinite(score) && isfinite(bias);
        const double finite = is_beyond ? copysign((double)FLT_MAX, sum) : sum;
        const double other = item->excludes_only ? score : finite;
        return bias == -(double)INFINITY ? item->excluded : other;
    }
    case ATTN_MASK_BOOL_INCLUDE:
        return flag ? score : item->excluded;
    default:
        return flag ? item->excluded : score;
    }
}

static bool is_excluded(const struct application *item, const char *data, int64_t offset) {
    if (item->kind == ATTN_MASK_ADDITIVE) {
        return attni_read_real(data, offset, item->mask_dtype) == -(double)INFINITY;
    }
    return (data[offset] != 0) == (item->kind == ATTN_MASK_BOOL_EXCLUDE);
}

static void check_application(const struct application *item, random_state *random) {
    char row[MOST_COLS * 8 + 8];
    double before[MOST_COLS];
    const int64_t any = random_between(random, 0, 7);
    char *data = mask_memory + any;
    char *scores = row + any;
    fill_mask(random, data, item->mask_dtype);
    const attni_mask mask = {.data = data, .kind = item->kind, .dtype = item->mask_dtype};
    for (int64_t j = 0; j < item->n; ++j) {
        before[j] = (double)(float)(j % 9 == 8   ? NAN
                                    : j % 9 == 7 ? -INFINITY
                                    : j % 9 == 6 ? (double)-FLT_MAX
                                                 : random_real(random, -9, 9));
        attni_write_real(scores, j, item->row_dtype, before[j]);
    }
    const attni_row_kernels *kernels =
        attni_kernels_of(attni_kernel_set_find(NULL), item->row_dtype);
    if (item->excludes_only) {
        attni_mask_exclude(&mask, item->offset, item->stride, kernels, scores, item->n,
                           item->excluded);
    } else {
        attni_mask_apply(&mask, item->offset, item->stride, kernels, scores, item->n,
                         item->excluded);
    }
    for (int64_t j = 0; j < item->n; ++j) {
        const int64_t offset = item->offset + j * item->stride;
        const double expected = specified(item, data, offset, before[j]);
        const double actual = attni_read_real(scores, j, item->row_dtype);
        if (!(actual == expected || (isnan(actual) && isnan(expected)))) {
            fail_msg("kind %d, key %lld: %g became %g, expected %g", item->kind, (long long)j,
                     before[j], actual, expected);
        }
        assert_int_equal(attni_mask_excludes(&mask, offset), is_excluded(item, data, offset));
    }
}

static void apply_any_mask_does_what_is_specified(void **state) {
    (void)state;
    random_state random = random_seeded(141);
    for (int i = 0; i < 20000; ++i) {
        const struct application item = random_application(&random);
        check_application(&item, &random);
    }
}

/* ---- what is accepted ---- */

struct kind_case {
    int32_t mask_dtype; /* ATTN_DTYPE_INVALID: there is no mask */
    int32_t kind;
    int32_t score_dtype;
    attn_status status;
    const char *detail;
};

static void kind_and_dtype_fit_together_or_are_refused(void **state) {
    (void)state;
    static const char needs_kind[] =
        "mask_kind: expected ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE or ATTN_MASK_BOOL_EXCLUDE "
        "with a mask, got 0";
    static const struct kind_case cases[] = {
        {0, ATTN_MASK_NONE, 1, ATTN_OK, ""},
        {0, ATTN_MASK_ADDITIVE, 1, ATTN_ERROR_VALUE,
         "mask_kind: expected ATTN_MASK_NONE without a mask, got 1"},
        {0, ATTN_MASK_BOOL_EXCLUDE, 1, ATTN_ERROR_VALUE,
         "mask_kind: expected ATTN_MASK_NONE without a mask, got 3"},
        {0, -1, 1, ATTN_ERROR_VALUE,
         "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got -1"},
        {0, 4, 1, ATTN_ERROR_UNSUPPORTED,
         "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got 4"},
        {ATTN_DTYPE_BOOL, ATTN_MASK_NONE, 1, ATTN_ERROR_VALUE, needs_kind},
        {ATTN_DTYPE_BOOL, ATTN_MASK_BOOL_INCLUDE, 1, ATTN_OK, ""},
        {ATTN_DTYPE_BOOL, ATTN_MASK_BOOL_EXCLUDE, 2, ATTN_OK, ""},
        {ATTN_DTYPE_BOOL, ATTN_MASK_ADDITIVE, 2, ATTN_ERROR_DTYPE,
         "mask: expected dtype float32 or float64, got bool"},
        {ATTN_DTYPE_BOOL, 4, 1, ATTN_ERROR_UNSUPPORTED,
         "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got 4"},
        {ATTN_DTYPE_FLOAT32, ATTN_MASK_ADDITIVE, ATTN_DTYPE_FLOAT32, ATTN_OK, ""},
        {ATTN_DTYPE_FLOAT32, ATTN_MASK_ADDITIVE, ATTN_DTYPE_FLOAT64, ATTN_OK, ""},
        {ATTN_DTYPE_FLOAT64, ATTN_MASK_ADDITIVE, ATTN_DTYPE_FLOAT64, ATTN_OK, ""},
        {ATTN_DTYPE_FLOAT64, ATTN_MASK_ADDITIVE, ATTN_DTYPE_FLOAT32, ATTN_ERROR_DTYPE,
         "mask: expected dtype float32, got float64"},
        {ATTN_DTYPE_FLOAT32, ATTN_MASK_BOOL_INCLUDE, ATTN_DTYPE_FLOAT32, ATTN_ERROR_DTYPE,
         "mask: expected dtype bool, got float32"},
        {ATTN_DTYPE_INT64, ATTN_MASK_BOOL_EXCLUDE, ATTN_DTYPE_FLOAT32, ATTN_ERROR_DTYPE,
         "mask: expected dtype bool, got int64"},
    };
    const attni_axis axes[] = {{"L", 2}, {"S", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        attn_tensor mask = {.data = mask_memory,
                            .dtype = cases[i].mask_dtype,
                            .rank = 1,
                            .shape = {3},
                            .strides = {1}};
        const attn_tensor *given = cases[i].mask_dtype == ATTN_DTYPE_INVALID ? NULL : &mask;
        attni_mask canonical;
        attni_error_clear();
        assert_int_equal(attni_mask_check_kind("mask", given, cases[i].kind, cases[i].score_dtype),
                         cases[i].status);
        assert_string_equal(attn_last_error(), cases[i].detail);
        attni_error_clear();
        assert_int_equal(attni_mask_check("mask", given, cases[i].kind, cases[i].score_dtype, axes,
                                          2, ATTNI_DATA_REQUIRED, &canonical),
                         cases[i].status);
        assert_string_equal(attn_last_error(), cases[i].detail);
        assert_int_equal(canonical.kind,
                         cases[i].status == ATTN_OK ? cases[i].kind : ATTN_MASK_NONE);
    }
}

static void check_canonical_mask_repeats_missing_axes(void **state) {
    (void)state;
    const attni_axis axes[] = {{"N", 4}, {"H", 2}, {"L", 5}, {"S", 7}};
    const attn_tensor given = {.data = mask_memory + 3,
                               .dtype = ATTN_DTYPE_BOOL,
                               .rank = 3,
                               .shape = {2, 1, 7},
                               .strides = {40, 9, -2}};
    attni_mask mask;
    assert_int_equal(attni_mask_check("attn_mask", &given, ATTN_MASK_BOOL_INCLUDE,
                                      ATTN_DTYPE_FLOAT32, axes, 4, ATTNI_DATA_REQUIRED, &mask),
                     ATTN_OK);
    static const int64_t expected[] = {0, 40, 0, -2};
    assert_memory_equal(mask.strides, expected, sizeof expected);
    assert_ptr_equal(mask.data, given.data);
    assert_int_equal(mask.kind, ATTN_MASK_BOOL_INCLUDE);
    assert_int_equal(mask.dtype, ATTN_DTYPE_BOOL);
}

static void check_mask_of_wrong_form_is_refused(void **state) {
    (void)state;
    const attni_axis axes[] = {{"L", 5}, {"S", 7}};
    const attn_tensor right = {.data = mask_memory,
                               .dtype = ATTN_DTYPE_FLOAT32,
                               .rank = 2,
                               .shape = {5, 7},
                               .strides = {7, 1}};
    attn_tensor scalar = right;
    attn_tensor wrong_length = right;
    attn_tensor without_data = right;
    attni_mask mask;
    scalar.rank = 0;
    wrong_length.shape[1] = 6;
    without_data.data = NULL;
    assert_int_equal(
        attni_mask_check("m", &scalar, ATTN_MASK_ADDITIVE, 1, axes, 2, ATTNI_DATA_REQUIRED, &mask),
        ATTN_ERROR_SHAPE);
    assert_string_equal(attn_last_error(), "m: expected rank 1 to 8, got 0");
    assert_int_equal(attni_mask_check("m", &wrong_length, ATTN_MASK_ADDITIVE, 1, axes, 2,
                                      ATTNI_DATA_REQUIRED, &mask),
                     ATTN_ERROR_SHAPE);
    assert_int_equal(attni_mask_check("m", &without_data, ATTN_MASK_ADDITIVE, 1, axes, 2,
                                      ATTNI_DATA_REQUIRED, &mask),
                     ATTN_ERROR_NULL);
    assert_int_equal(mask.kind, ATTN_MASK_NONE);
    assert_int_equal(attni_mask_check("m", &without_data, ATTN_MASK_ADDITIVE, 1, axes, 2,
                                      ATTNI_DATA_IGNORED, &mask),
                     ATTN_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apply_any_mask_does_what_is_specified),
        cmocka_unit_test(kind_and_dtype_fit_together_or_are_refused),
        cmocka_unit_test(check_canonical_mask_repeats_missing_axes),
        cmocka_unit_test(check_mask_of_wrong_form_is_refused),
    };
    return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
