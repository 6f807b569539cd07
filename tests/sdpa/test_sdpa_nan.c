/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_nan.c: NaN goes where it is seen, and nowhere else: by both engines, in lanes and by
 * rows, per head and averaged.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { MOST = 12, NAN_KEY = 1 };

static attn_context *context_of(int32_t engine) {
    const attn_context_config settings = {.struct_size = sizeof settings, .engine = engine};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    return context;
}

static attn_tensor view_of(float *data, int32_t rank, int64_t heads, int64_t rows, int64_t cols) {
    const int64_t shape[] = {heads, rows, cols};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, rank, shape + 3 - rank),
                     ATTN_OK);
    return view;
}

/* Causal attention of `rows` rows over as many keys, the key NAN_KEY being NaN: row 0 does not see
 * it, the others do, and each row's weights beyond itself are 0. */
static void check_causal_weights(int32_t engine, int64_t rows, bool is_averaged) {
    float query[MOST], key[MOST], value[MOST], output[MOST], weights[MOST * MOST];
    for (int64_t i = 0; i < rows; ++i) {
        query[i] = 1;
        key[i] = i == NAN_KEY ? NAN : 1;
        value[i] = (float)i;
    }
    const attn_tensor q = view_of(query, 3, 1, rows, 1), k = view_of(key, 3, 1, rows, 1);
    const attn_tensor v = view_of(value, 3, 1, rows, 1), o = view_of(output, 3, 1, rows, 1);
    const attn_tensor w = view_of(weights, is_averaged ? 2 : 3, 1, rows, rows);
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1, .weights = &w};
    attn_context *context = context_of(engine);
    assert_int_equal(attn_sdpa(context, &q, &k, &v, &params, &o, NULL, 0), ATTN_OK);
    attn_context_destroy(context);
    for (int64_t i = 0; i < rows; ++i) {
        assert_int_equal(isnan(output[i]) != 0, i >= NAN_KEY);
        for (int64_t j = 0; j < rows; ++j) {
            const float weight = weights[i * rows + j];
            if (j > i) {
                assert_true(weight == 0);
            } else {
                assert_int_equal(isnan(weight) != 0, i >= NAN_KEY);
            }
        }
    }
}

static void hidden_keys_of_a_row_of_nan_weigh_0(void **state) {
    (void)state;
    const int64_t lengths[] = {3, MOST}; /* by rows and in lanes */
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t i = 0; i < 2; ++i) {
            check_causal_weights(engine, lengths[i], false);
            check_causal_weights(engine, lengths[i], true);
        }
    }
}

/* A visible score of -200 has the sigmoid 0 in float32, and 0 * NaN is NaN. */
static void sigmoid_that_underflows_is_not_an_empty_row(void **state) {
    (void)state;
    const int64_t lengths[] = {3, MOST};
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t i = 0; i < 2; ++i) {
            float query[MOST], key[] = {-200}, value[] = {NAN}, output[MOST] = {0};
            for (int64_t row = 0; row < lengths[i]; ++row) {
                query[row] = 1;
            }
            const attn_tensor q = view_of(query, 2, 1, lengths[i], 1);
            const attn_tensor k = view_of(key, 2, 1, 1, 1), v = view_of(value, 2, 1, 1, 1);
            const attn_tensor o = view_of(output, 2, 1, lengths[i], 1);
            const attn_sdpa_params params = {.struct_size = sizeof params,
                                             .normalizer = ATTN_NORMALIZER_SIGMOID};
            attn_context *context = context_of(engine);
            assert_int_equal(attn_sdpa(context, &q, &k, &v, &params, &o, NULL, 0), ATTN_OK);
            attn_context_destroy(context);
            for (int64_t row = 0; row < lengths[i]; ++row) {
                assert_true(isnan(output[row]));
            }
        }
    }
}

/* A cap beyond every float32 caps nothing, and must not bring NaN either. */
static void softcap_beyond_float32_caps_nothing(void **state) {
    (void)state;
    const int64_t lengths[] = {3, MOST};
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t i = 0; i < 2; ++i) {
            float data[MOST], capped[MOST], uncapped[MOST];
            for (int64_t row = 0; row < lengths[i]; ++row) {
                data[row] = (float)row / MOST;
            }
            const attn_tensor x = view_of(data, 2, 1, lengths[i], 1);
            const attn_tensor a = view_of(capped, 2, 1, lengths[i], 1);
            const attn_tensor b = view_of(uncapped, 2, 1, lengths[i], 1);
            const attn_sdpa_params params = {.struct_size = sizeof params, .softcap = 1e39};
            attn_context *context = context_of(engine);
            assert_int_equal(attn_sdpa(context, &x, &x, &x, &params, &a, NULL, 0), ATTN_OK);
            assert_int_equal(attn_sdpa(context, &x, &x, &x, NULL, &b, NULL, 0), ATTN_OK);
            attn_context_destroy(context);
            assert_memory_equal(capped, uncapped, (size_t)lengths[i] * sizeof(float));
        }
    }
}

/* Few rows over many keys, which are split: what all splits have gathered is NaN. */
static void rows_of_nan_over_split_keys_are_nan(void **state) {
    (void)state;
    enum { ROWS = 2, KEYS = 3 * 2048 };
    static float key[KEYS], value[KEYS];
    float query[ROWS] = {NAN, 1}, output[ROWS] = {0};
    for (int64_t i = 0; i < KEYS; ++i) {
        key[i] = 1;
        value[i] = 0.5F;
    }
    const attn_tensor q = view_of(query, 2, 1, ROWS, 1), k = view_of(key, 2, 1, KEYS, 1);
    const attn_tensor v = view_of(value, 2, 1, KEYS, 1), o = view_of(output, 2, 1, ROWS, 1);
    attn_context *context = context_of(ATTN_ENGINE_FUSED);
    attn_sdpa_report report = {.struct_size = sizeof report};
    assert_int_equal(attn_sdpa_explain(context, &q, &k, &v, NULL, &o, &report), ATTN_OK);
    assert_true(report.num_blocks > 1); /* one block of rows, so these are splits */
    assert_int_equal(attn_sdpa(context, &q, &k, &v, NULL, &o, NULL, 0), ATTN_OK);
    attn_context_destroy(context);
    assert_true(isnan(output[0]));
    assert_true(fabsf(output[1] - 0.5F) < 1e-5F);
}

/* Rows of a window over values of bfloat16, one of which is NaN: those that see it are NaN, those of
 * the panel behind, whose keys may begin within a pair, are not. */
static void check_window(attn_context *context, int64_t left, int64_t nan_key) {
    enum { ROWS = 150, FEATURES = 32, ONE = 0x3f80, NOT_A_NUMBER = 0x7fc0 };
    static uint16_t query[ROWS * FEATURES], value[ROWS * FEATURES];
    static float output[ROWS * FEATURES];
    const int64_t shape[] = {ROWS, FEATURES};
    attn_tensor q, v, o;
    for (int64_t i = 0; i < ROWS * FEATURES; ++i) {
        value[i] = i / FEATURES == nan_key ? NOT_A_NUMBER : ONE;
    }
    assert_int_equal(attn_tensor_init(&q, query, ATTN_DTYPE_BFLOAT16, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&v, value, ATTN_DTYPE_BFLOAT16, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&o, output, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .set = ATTN_SDPA_SET_WINDOW,
                                     .is_causal = 1,
                                     .window_left = left,
                                     .window_right = -1};
    assert_int_equal(attn_sdpa(context, &q, &q, &v, &params, &o, NULL, 0), ATTN_OK);
    for (int64_t row = 0; row < ROWS; ++row) {
        const bool is_seen = nan_key <= row && row <= nan_key + left;
        assert_int_equal(isnan(output[row * FEATURES]) != 0, is_seen);
    }
}

static void pairs_hold_no_value_that_no_row_sees(void **state) {
    (void)state;
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        const attn_context_config settings = {.struct_size = sizeof settings,
                                              .kernels = attn_kernels_name(i)};
        attn_context *context;
        assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
        for (int64_t left = 0; left < 4; ++left) {
            for (int64_t nan_key = 6; nan_key < 100; nan_key += 5) {
                check_window(context, left, nan_key);
            }
            for (int64_t nan_key = 44; nan_key < 52; ++nan_key) {
                check_window(context, left, nan_key); /* where a panel of 48 rows ends */
            }
        }
        attn_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softcap_beyond_float32_caps_nothing),
        cmocka_unit_test(hidden_keys_of_a_row_of_nan_weigh_0),
        cmocka_unit_test(sigmoid_that_underflows_is_not_an_empty_row),
        cmocka_unit_test(rows_of_nan_over_split_keys_are_nan),
        cmocka_unit_test(pairs_hold_no_value_that_no_row_sees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
