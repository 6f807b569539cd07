/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_sdpa.c: what the formula of attention implies, whatever the numbers are.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, 2, 4, 4, 19, 27, 16, 8},
    {ATTN_DTYPE_FLOAT32, 1, 6, 2, 5, 66, 33, 7},
    {ATTN_DTYPE_FLOAT64, 2, 3, 3, 30, 12, 8, 24},
};
enum { NUM_SIZES = 3, MOST_HEADS = 6, MOST_KEYS = 66 };

/* A mask over (H, L, S) that hides about a third of the keys, and every key from the last row. */
static void add_mask(sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->heads, s->rows, s->keys};
    attn_tensor *mask = pool_input(&setup->pool, s->dtype, 3, shape, LAYOUT_CONTIGUOUS);
    int64_t index[3] = {0};
    do {
        const int is_hidden = index[1] == s->rows - 1 || random_between(&setup->random, 0, 2) == 0;
        oracle_store(mask, index, is_hidden ? -INFINITY : random_real(&setup->random, -1, 1));
    } while (oracle_next_index(3, shape, index));
    setup->params.mask = mask;
    setup->params.mask_kind = ATTN_MASK_ADDITIVE;
}

/* Sum over keys of the weights of row `row` of all rows. */
static double weight_sum(const sdpa_setup *setup, const double *weights, int64_t row) {
    double sum = 0;
    for (int64_t j = 0; j < setup->sizes.keys; ++j) {
        sum += weights[row * setup->sizes.keys + j];
    }
    return sum;
}

static void sdpa_weights_of_a_row_sum_to_one_or_zero(void **state) {
    (void)state;
    for (int c = 0; c < NUM_SIZES; ++c) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[c], 23);
        add_mask(&setup);
        sdpa_setup_run(NULL, &setup);
        const double unit = bound_rounding_of(setup.sizes.dtype).unit;
        double *weights = oracle_expand(setup.weights, 4, setup.weights->shape);
        double *lse = oracle_expand(setup.lse, 3, setup.lse->shape);
        for (int64_t row = 0; row < oracle_count(3, setup.lse->shape); ++row) {
            const double expected = lse[row] == -INFINITY ? 0 : 1;
            assert_true(fabs(weight_sum(&setup, weights, row) - expected) <=
                        expected * (double)(setup.sizes.keys + 8) * unit);
            assert_true(row % setup.sizes.rows != setup.sizes.rows - 1 || expected == 0);
        }
        free(weights);
        free(lse);
        sdpa_setup_destroy(&setup);
    }
}

/* A sink takes exp(sink - lse) of the weight and nothing else. */
static void sdpa_weights_and_sink_sum_to_one(void **state) {
    (void)state;
    for (int c = 0; c < NUM_SIZES; ++c) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[c], 29);
        add_mask(&setup);
        attn_tensor *sinks =
            pool_input(&setup.pool, setup.sizes.dtype, 1, (const int64_t[]){1}, LAYOUT_CONTIGUOUS);
        const int64_t first = 0;
        oracle_store(sinks, &first, 0.75);
        setup.params.sinks = sinks;
        sdpa_setup_run(NULL, &setup);
        const double unit = bound_rounding_of(setup.sizes.dtype).unit;
        double *weights = oracle_expand(setup.weights, 4, setup.weights->shape);
        double *lse = oracle_expand(setup.lse, 3, setup.lse->shape);
        for (int64_t row = 0; row < oracle_count(3, setup.lse->shape); ++row) {
            const double sum = weight_sum(&setup, weights, row) + exp(0.75 - lse[row]);
            assert_true(fabs(sum - 1) <=
                        (double)(setup.sizes.keys + 16) * unit * (1 + fabs(lse[row])));
        }
        free(weights);
        free(lse);
        sdpa_setup_destroy(&setup);
    }
}

/* Query heads permuted, and with them the mask's and (without groups) the key's and value's: the
 * output's heads are permuted. */
static void sdpa_permuting_heads_permutes_outputs(void **state) {
    (void)state;
    for (int c = 0; c < NUM_SIZES; ++c) {
        const int64_t heads = all_sizes[c].heads, group = heads / all_sizes[c].kv_heads;
        int64_t kv_order[MOST_HEADS], order[MOST_HEADS], inverse[MOST_HEADS];
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[c], 31);
        add_mask(&setup);
        oracle_result expected = sdpa_setup_expect(&setup);
        random_order(&setup.random, all_sizes[c].kv_heads, kv_order);
        for (int64_t h = 0; h < heads; ++h) {
            order[h] = kv_order[h / group] * group + (h % group + 1) % group;
            inverse[order[h]] = h;
        }
        setup.query = reordered(&setup.pool, setup.query, 1, heads, order);
        setup.key = reordered(&setup.pool, setup.key, 1, all_sizes[c].kv_heads, kv_order);
        setup.value = reordered(&setup.pool, setup.value, 1, all_sizes[c].kv_heads, kv_order);
        setup.params.mask = reordered(&setup.pool, setup.params.mask, 0, heads, order);
        sdpa_setup_run(NULL, &setup);
        assert_close("output", reordered(&setup.pool, setup.output, 1, heads, inverse),
                     &expected.output);
        assert_close("lse", reordered(&setup.pool, setup.lse, 1, heads, inverse), &expected.lse);
        assert_close("weights", reordered(&setup.pool, setup.weights, 1, heads, inverse),
                     &expected.weights);
        oracle_result_destroy(&expected);
        sdpa_setup_destroy(&setup);
    }
}

static void sdpa_permuting_keys_leaves_outputs(void **state) {
    (void)state;
    for (int c = 0; c < NUM_SIZES; ++c) {
        const int64_t keys = all_sizes[c].keys;
        int64_t order[MOST_KEYS], inverse[MOST_KEYS];
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[c], 37);
        add_mask(&setup);
        oracle_result expected = sdpa_setup_expect(&setup);
        random_order(&setup.random, keys, order);
        for (int64_t j = 0; j < keys; ++j) {
            inverse[order[j]] = j;
        }
        setup.key = reordered(&setup.pool, setup.key, 2, keys, order);
        setup.value = reordered(&setup.pool, setup.value, 2, keys, order);
        setup.params.mask = reordered(&setup.pool, setup.params.mask, 2, keys, order);
        sdpa_setup_run(NULL, &setup);
        assert_close("output", setup.output, &expected.output);
        assert_close("lse", setup.lse, &expected.lse);
        assert_close("weights", reordered(&setup.pool, setup.weights, 3, keys, inverse),
                     &expected.weights);
        oracle_result_destroy(&expected);
        sdpa_setup_destroy(&setup);
    }
}

/* One key, or one key that a row sees: its weight is 1 and the row's output its value, to the last
 * bit. */
static void sdpa_one_visible_key_returns_its_value(void **state) {
    (void)state;
    for (int c = 0; c < NUM_SIZES; ++c) {
        sdpa_setup setup;
        sdpa_sizes sizes = all_sizes[c];
        sizes.rows = sizes.keys;
        sdpa_setup_create(&setup, &sizes, 41);
        setup.params.set |= ATTN_SDPA_SET_WINDOW;
        sdpa_setup_run(NULL, &setup);
        int64_t groups[MOST_HEADS];
        for (int64_t h = 0; h < sizes.heads; ++h) {
            groups[h] = h / (sizes.heads / sizes.kv_heads);
        }
        assert_same_bits("output", setup.output,
                         reordered(&setup.pool, setup.value, 1, sizes.heads, groups));
        sdpa_setup_destroy(&setup);
    }
}

static void sdpa_grouped_queries_equal_repeated_heads(void **state) {
    (void)state;
    sdpa_setup setup;
    sdpa_setup_create(&setup, &all_sizes[1], 43);
    const int64_t heads = setup.sizes.heads, group = heads / setup.sizes.kv_heads;
    int64_t repeated[MOST_HEADS];
    for (int64_t h = 0; h < heads; ++h) {
        repeated[h] = h / group;
    }
    oracle_result grouped = sdpa_setup_expect(&setup);
    sdpa_setup_run(NULL, &setup);
    assert_sdpa_equals(&setup, &grouped);
    setup.params.set = 0;
    setup.key = reordered(&setup.pool, setup.key, 1, heads, repeated);
    setup.value = reordered(&setup.pool, setup.value, 1, heads, repeated);
    sdpa_setup_run(NULL, &setup);
    assert_sdpa_equals(&setup, &grouped);
    oracle_result_destroy(&grouped);
    sdpa_setup_destroy(&setup);
}

/* The averaged weights are the mean of the weights the same call gives per head, up to the mean's
 * own rounding. */
static void sdpa_averaged_weights_are_the_mean_over_heads(void **state) {
    (void)state;
    for (int c = 0; c < NUM_SIZES; ++c) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[c], 47);
        add_mask(&setup);
        sdpa_setup_run(NULL, &setup);
        const sdpa_sizes *s = &setup.sizes;
        double *weights = oracle_expand(setup.weights, 4, setup.weights->shape);
        attn_tensor *mean =
            pool_output(&setup.pool, s->dtype, 3, (const int64_t[]){s->batch, s->rows, s->keys},
                        LAYOUT_CONTIGUOUS);
        setup.params.weights = mean;
        sdpa_setup_run(NULL, &setup);

        const int64_t matrix = s->rows * s->keys;
        oracle_array expected = oracle_array_create(s->batch * matrix);
        for (int64_t at = 0; at < expected.count; ++at) {
            double sum = 0;
            for (int64_t h = 0; h < s->heads; ++h) {
                sum += weights[(at / matrix * s->heads + h) * matrix + at % matrix];
            }
            expected.value[at] = sum / (double)s->heads;
            expected.error[at] =
                (double)(s->heads + 2) * bound_rounding_of(s->dtype).unit * expected.value[at];
        }
        assert_close("mean", mean, &expected);
        oracle_array_destroy(&expected);
        free(weights);
        sdpa_setup_destroy(&setup);
    }
}

/* The same heads and batches whatever axes they are called: ranks 2, 3 and 4 of one problem. */
static void sdpa_rank_does_not_matter(void **state) {
    (void)state;
    sdpa_setup setup;
    const sdpa_sizes sizes = {ATTN_DTYPE_FLOAT32, 1, 1, 1, 19, 27, 16, 8};
    sdpa_setup_create(&setup, &sizes, 53);
    oracle_result expected = sdpa_setup_expect(&setup);
    attn_tensor *const views[] = {setup.query,  setup.key, setup.value,
                                  setup.output, setup.lse, setup.weights};
    for (int dropped = 0; dropped < 2; ++dropped) {
        for (int v = 0; v < 6; ++v) {
            --views[v]->rank;
            memmove(views[v]->shape, views[v]->shape + 1, 7 * sizeof *views[v]->shape);
            memmove(views[v]->strides, views[v]->strides + 1, 7 * sizeof *views[v]->strides);
        }
        sdpa_setup_run(NULL, &setup);
        assert_sdpa_equals(&setup, &expected);
    }
    oracle_result_destroy(&expected);
    sdpa_setup_destroy(&setup);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdpa_weights_of_a_row_sum_to_one_or_zero),
        cmocka_unit_test(sdpa_weights_and_sink_sum_to_one),
        cmocka_unit_test(sdpa_permuting_heads_permutes_outputs),
        cmocka_unit_test(sdpa_permuting_keys_leaves_outputs),
        cmocka_unit_test(sdpa_one_visible_key_returns_its_value),
        cmocka_unit_test(sdpa_grouped_queries_equal_repeated_heads),
        cmocka_unit_test(sdpa_averaged_weights_are_the_mean_over_heads),
        cmocka_unit_test(sdpa_rank_does_not_matter),
    };
    return cmocka_run_group_tests_name("properties of sdpa", tests, NULL, NULL);
}
