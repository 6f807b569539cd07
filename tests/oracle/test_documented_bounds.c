/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_documented_bounds.c: the error bounds that attention/softmax.h and attention/sdpa.h promise
 * under "Numerics". They are simpler than the ones of compare.h, which every other test uses.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_sdpa.h"
#include "support/oracle_tensor.h"

static double unit_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? 0x1p-53 : 0x1p-24;
}

/* Weights of a row in long double, and (m - x + min(S, 512) + 32) u w, or the smallest normal
 * number. */
static void exact_softmax_row(int32_t dtype, const double *values, int64_t count, double *weights,
                              double *errors) {
    const double smallest = dtype == ATTN_DTYPE_FLOAT64 ? DBL_MIN : FLT_MIN;
    long double maximum = values[0], sum = 0;
    for (int64_t j = 1; j < count; ++j) {
        maximum = fmaxl(maximum, values[j]);
    }
    for (int64_t j = 0; j < count; ++j) {
        sum += expl(values[j] - maximum);
    }
    for (int64_t j = 0; j < count; ++j) {
        const double units =
            (double)(maximum - values[j]) + (count < 512 ? (double)count : 512) + 32;
        weights[j] = (double)(expl(values[j] - maximum) / sum);
        errors[j] = fmax(units * unit_of(dtype) * weights[j], smallest);
    }
}

/* The largest error / bound of attn_softmax on random rows of a width. */
static double softmax_ratio(int32_t dtype, int64_t width, double range) {
    random_state random = random_seeded(163);
    tensor_pool pool = {0};
    const int64_t shape[] = {9, width};
    attn_tensor *input = pool_input(&pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    attn_tensor *output = pool_output(&pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    random_fill(input, &random, -range, range, 0);
    assert_ok(attn_softmax(NULL, input, NULL, output, NULL, 0));
    double *values = oracle_expand(input, 2, shape);
    oracle_array expected = oracle_array_create(shape[0] * width);
    for (int64_t at = 0; at < expected.count; at += width) {
        exact_softmax_row(dtype, values + at, width, expected.value + at, expected.error + at);
    }
    compare_stats stats = {0};
    char message[400] = "";
    const int failed = compare_tensor("output", output, &expected, &stats, message, sizeof message);
    oracle_array_destroy(&expected);
    free(values);
    pool_destroy(&pool);
    if (failed) {
        fail_msg("%lld values within %g: %s", (long long)width, range, message);
    }
    return stats.largest_ratio;
}

static void softmax_error_is_within_the_documented_bound(void **state) {
    (void)state;
    const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                              ATTN_DTYPE_FLOAT16};
    const int64_t widths[] = {1, 3, 67, 512, 5000};
    const double ranges[] = {0.5, 8, 60};
    for (int d = 0; d < 4; ++d) {
        double largest = 0;
        for (int i = 0; i < 15; ++i) {
            largest = fmax(largest, softmax_ratio(dtypes[d], widths[i % 5], ranges[i / 5]));
        }
        print_message("attn_softmax, dtype %d: largest error / documented bound %.3f\n",
                      (int)dtypes[d], largest);
    }
}

/* One row of a call: the bounds' ingredients. */
typedef struct row_figures {
    double score_error;    /* d */
    double largest_spread; /* m */
} row_figures;

/* What is added to the scores of a row: the sum, and the sum of absolute values. */
typedef struct row_added {
    const double *bias, *magnitude;
} row_added;

static row_figures measure_row(const sdpa_sizes *sizes, double unit, const double *query,
                               const double *keys, row_added added) {
    const double scale = 1 / sqrt((double)sizes->features);
    double largest = -INFINITY, smallest = INFINITY, largest_magnitude = 0;
    for (int64_t j = 0; j < sizes->keys; ++j) {
        double score = added.bias[j], magnitude = added.magnitude[j];
        for (int64_t e = 0; e < sizes->features; ++e) {
            score += scale * query[e] * keys[j * sizes->features + e];
            magnitude += scale * fabs(query[e] * keys[j * sizes->features + e]);
        }
        largest = fmax(largest, score);
        smallest = fmin(smallest, score);
        largest_magnitude = fmax(largest_magnitude, magnitude);
    }
    return (row_figures){(double)(sizes->features + 8) * unit * largest_magnitude,
                         largest - smallest};
}

/* Replaces the errors of the expected output by (2 d + (T + 16 + m) u) sum w |v|. */
static void use_documented_bound(const sdpa_setup *setup, oracle_result *expected) {
    const sdpa_sizes *s = &setup->sizes;
    /* The oracle's own errors, of the same form, count in float64. */
    const double unit = bound_rounding_of(s->dtype).unit;
    const double weight_unit =
        oracle_weight_unit(attn_kernels_name(0), setup->query, setup->key, setup->value);
    double *queries = oracle_expand(setup->query, 4, setup->query->shape);
    double *keys = oracle_expand(setup->key, 4, setup->key->shape);
    double *values = oracle_expand(setup->value, 4, setup->value->shape);
    oracle_mask added = oracle_mask_create(oracle_count(4, setup->weights->shape));
    if (setup->params.mask != NULL) {
        oracle_mask_add(&added, ATTN_MASK_ADDITIVE, setup->params.mask, 4, setup->weights->shape);
        oracle_mask_add(&added, ATTN_MASK_ADDITIVE, setup->params.bias, 4, setup->weights->shape);
    }
    for (int64_t row = 0; row < s->batch * s->heads * s->rows; ++row) {
        const int64_t head = row / s->rows;
        const row_added of_row = {added.bias + row * s->keys, added.magnitude + row * s->keys};
        const row_figures figures = measure_row(s, unit, queries + row * s->features,
                                                keys + head * s->keys * s->features, of_row);
        const double relative =
            2 * figures.score_error + ((double)s->keys + 16 + figures.largest_spread) * unit;
        for (int64_t d = 0; d < s->value_features; ++d) {
            double sum = 0;
            for (int64_t j = 0; j < s->keys; ++j) {
                sum += expected->weights.value[row * s->keys + j] *
                       fabs(values[(head * s->keys + j) * s->value_features + d]);
            }
            expected->output.error[row * s->value_features + d] = (relative + weight_unit) * sum;
        }
    }
    oracle_mask_destroy(&added);
    free(queries);
    free(keys);
    free(values);
}

/* Numbers so large that their rounding counts. */
static void add_mask_and_bias(sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->heads, s->rows, s->keys};
    attn_tensor *mask = pool_input(&setup->pool, s->dtype, 1, shape + 2, LAYOUT_CONTIGUOUS);
    attn_tensor *bias = pool_input(&setup->pool, s->dtype, 3, shape, LAYOUT_CONTIGUOUS);
    random_fill(mask, &setup->random, -90, 90, 0);
    random_fill(bias, &setup->random, -90, 90, 0);
    setup->params.mask = mask;
    setup->params.mask_kind = ATTN_MASK_ADDITIVE;
    setup->params.bias = bias;
}

static void sdpa_error_is_within_the_documented_bound(void **state) {
    (void)state;
    const sdpa_sizes sizes[] = {
        {ATTN_DTYPE_FLOAT32, 2, 2, 2, 19, 1, 16, 8},  {ATTN_DTYPE_FLOAT32, 1, 3, 3, 40, 67, 64, 8},
        {ATTN_DTYPE_FLOAT32, 1, 1, 1, 9, 900, 3, 33}, {ATTN_DTYPE_BFLOAT16, 1, 3, 3, 40, 67, 64, 8},
        {ATTN_DTYPE_FLOAT16, 1, 1, 1, 3, 900, 3, 33}, {ATTN_DTYPE_FLOAT64, 2, 3, 3, 30, 12, 8, 24},
        {ATTN_DTYPE_FLOAT64, 1, 2, 2, 20, 300, 24, 8}};
    double largest = 0;
    for (size_t i = 0; i < 2 * (sizeof sizes / sizeof *sizes); ++i) {
        const size_t c = i / 2;
        sdpa_setup setup;
        sdpa_setup_create(&setup, &sizes[c], 167);
        if (i % 2 == 1) {
            add_mask_and_bias(&setup);
        }
        sdpa_setup_run(NULL, &setup);
        oracle_result expected = sdpa_setup_expect(&setup);
        use_documented_bound(&setup, &expected);
        compare_stats stats = {0};
        char message[400] = "";
        const int failed = compare_tensor("output", setup.output, &expected.output, &stats, message,
                                          sizeof message);
        largest = fmax(largest, stats.largest_ratio);
        oracle_result_destroy(&expected);
        sdpa_setup_destroy(&setup);
        if (failed) {
            fail_msg("sizes %zu: %s", c, message);
        }
    }
    print_message("attn_sdpa: largest error / documented bound %.3f\n", largest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_error_is_within_the_documented_bound),
        cmocka_unit_test(sdpa_error_is_within_the_documented_bound),
    };
    return cmocka_run_group_tests_name("documented bounds", tests, NULL, NULL);
}
