/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_documented_bounds.c: the error bounds that attention/softmax.h, sdpa.h and merge.h promise
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

/* ---- attn_sdpa_merge ---- */

enum { MERGE_ROWS = 40, MERGE_COLS = 19, MOST_PARTS = 17 };

/* Partial results that all differ by up to `range` in their logits. */
typedef struct merge_setup {
    tensor_pool pool;
    int64_t count;
    attn_tensor outputs[MOST_PARTS], lses[MOST_PARTS];
    attn_tensor *output, *lse;
} merge_setup;

static void merge_setup_create(merge_setup *setup, int32_t dtype, int64_t count, double range) {
    const int64_t shape[] = {MERGE_ROWS, MERGE_COLS};
    const int32_t scores = dtype == ATTN_DTYPE_FLOAT64 ? dtype : ATTN_DTYPE_FLOAT32;
    random_state random = random_seeded(173);
    *setup = (merge_setup){.count = count};
    for (int64_t part = 0; part < count; ++part) {
        attn_tensor *output = pool_input(&setup->pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *lse = pool_input(&setup->pool, scores, 1, shape, LAYOUT_CONTIGUOUS);
        random_fill(output, &random, -1, 1, 0);
        random_fill(lse, &random, -range, range, 0);
        setup->outputs[part] = *output;
        setup->lses[part] = *lse;
    }
    setup->output = pool_output(&setup->pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    setup->lse = pool_output(&setup->pool, scores, 1, shape, LAYOUT_CONTIGUOUS);
}

/* A row in long double with (2 m + 2 count + 12) u sum w |outputs| and (m + 3 count + 6 + |lse|) u,
 * or, without lses, count u sum |outputs|. */
static void exact_merge_row(const merge_setup *setup, int64_t row, int has_lses,
                            oracle_array *output, oracle_array *lse) {
    const double unit = unit_of(setup->output->dtype), count = (double)setup->count;
    const double smallest = setup->output->dtype == ATTN_DTYPE_FLOAT64 ? DBL_MIN : FLT_MIN;
    double largest = -INFINITY, lowest = INFINITY;
    long double sum = 0;
    for (int64_t part = 0; part < setup->count; ++part) {
        const double logit = oracle_element(&setup->lses[part], &row);
        largest = fmax(largest, logit);
        lowest = fmin(lowest, logit);
    }
    for (int64_t part = 0; part < setup->count; ++part) {
        sum += expl((long double)oracle_element(&setup->lses[part], &row) - largest);
    }
    const double spread = largest - lowest;
    lse->value[row] = (double)(largest + logl(sum));
    lse->error[row] = (spread + 3 * count + 6 + fabs(lse->value[row])) * unit;
    for (int64_t col = 0; col < MERGE_COLS; ++col) {
        const int64_t index[] = {row, col};
        long double value = 0, magnitude = 0;
        for (int64_t part = 0; part < setup->count; ++part) {
            const long double logit = oracle_element(&setup->lses[part], &row);
            const long double weight = has_lses ? expl(logit - largest) / sum : 1;
            const long double term = weight * oracle_element(&setup->outputs[part], index);
            value += term;
            magnitude += fabsl(term);
        }
        const double units = has_lses ? 2 * spread + 2 * count + 12 : count;
        output->value[row * MERGE_COLS + col] = (double)value;
        output->error[row * MERGE_COLS + col] = units * unit * (double)magnitude + count * smallest;
    }
}

/* The largest error / bound. */
static double merge_ratio(int32_t dtype, int64_t count, double range, int has_lses) {
    merge_setup setup;
    merge_setup_create(&setup, dtype, count, range);
    assert_ok(attn_sdpa_merge(NULL, count, setup.outputs, has_lses ? setup.lses : NULL, NULL,
                              setup.output, has_lses ? setup.lse : NULL));
    oracle_array output = oracle_array_create(MERGE_ROWS * MERGE_COLS);
    oracle_array lse = oracle_array_create(MERGE_ROWS);
    for (int64_t row = 0; row < MERGE_ROWS; ++row) {
        exact_merge_row(&setup, row, has_lses, &output, &lse);
    }
    compare_stats stats = {0};
    char message[400] = "";
    const int failed =
        compare_tensor("output", setup.output, &output, &stats, message, sizeof message) ||
        (has_lses && compare_tensor("lse", setup.lse, &lse, &stats, message, sizeof message));
    oracle_array_destroy(&output);
    oracle_array_destroy(&lse);
    pool_destroy(&setup.pool);
    if (failed) {
        fail_msg("dtype %d, %lld parts within %g: %s", (int)dtype, (long long)count, range,
                 message);
    }
    return stats.largest_ratio;
}

static void merge_error_is_within_the_documented_bound(void **state) {
    (void)state;
    const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                              ATTN_DTYPE_FLOAT16};
    const int64_t counts[] = {1, 2, 5, MOST_PARTS};
    const double ranges[] = {0, 0.5, 8, 70};
    for (int d = 0; d < 4; ++d) {
        double largest = 0;
        for (int i = 0; i < 16; ++i) {
            largest = fmax(largest, merge_ratio(dtypes[d], counts[i % 4], ranges[i / 4], 1));
            largest = fmax(largest, merge_ratio(dtypes[d], counts[i % 4], ranges[i / 4], 0));
        }
        print_message("attn_sdpa_merge, dtype %d: largest error / documented bound %.3f\n",
                      (int)dtypes[d], largest);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_error_is_within_the_documented_bound),
        cmocka_unit_test(sdpa_error_is_within_the_documented_bound),
        cmocka_unit_test(merge_error_is_within_the_documented_bound),
    };
    return cmocka_run_group_tests_name("documented bounds", tests, NULL, NULL);
}
