/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_splits.c: few rows over so many keys that the fused engine splits them, with every
 * normaliser; against float64, whose engine knows no splits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { KEYS = 3 * 2048, MOST_ROWS = 13, FEATURES = 3 };

/* The same numbers in both types. */
typedef struct operand {
    float floats[KEYS * FEATURES];
    double doubles[KEYS * FEATURES];
} operand;
static operand keys;
static operand values;
static operand queries;

static attn_tensor matrix(void *data, int32_t dtype, int64_t rows) {
    const int64_t shape[] = {rows, FEATURES};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, dtype, 2, shape), ATTN_OK);
    return view;
}

static attn_tensor view_of(operand *numbers, int32_t dtype, int64_t rows) {
    void *data = dtype == ATTN_DTYPE_FLOAT32 ? (void *)numbers->floats : numbers->doubles;
    return matrix(data, dtype, rows);
}

static void attend(int32_t dtype, int32_t normalizer, int64_t rows, void *output) {
    const int is_split = dtype == ATTN_DTYPE_FLOAT32;
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = 2,
                                          .engine =
                                              is_split ? ATTN_ENGINE_FUSED : ATTN_ENGINE_BLAS};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    const attn_tensor query = view_of(&queries, dtype, rows), to = matrix(output, dtype, rows);
    const attn_tensor key = view_of(&keys, dtype, KEYS), value = view_of(&values, dtype, KEYS);
    const attn_sdpa_params params = {.struct_size = sizeof params, .normalizer = normalizer};
    attn_sdpa_report report = {.struct_size = sizeof report};
    assert_int_equal(attn_sdpa_explain(context, &query, &key, &value, &params, &to, &report),
                     ATTN_OK);
    assert_true(!is_split || report.num_blocks > 1);
    assert_int_equal(attn_sdpa(context, &query, &key, &value, &params, &to, NULL, 0), ATTN_OK);
    attn_context_destroy(context);
}

/* They grow, so that splits differ in their largest scores. */
static void fill(operand *numbers, int count, int period) {
    for (int i = 0; i < count; ++i) {
        const float size = 3 * (float)i / (float)count;
        numbers->floats[i] = size * (float)(i % period - 3) / (float)period;
        numbers->doubles[i] = numbers->floats[i];
    }
}

/* Sums without a normaliser grow with the keys, and so does what rounding leaves of them. */
static void every_normalizer_merges_splits(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 3, MOST_ROWS}; /* by rows, and in lanes */
    static const int32_t normalizers[] = {ATTN_NORMALIZER_SOFTMAX, ATTN_NORMALIZER_SIGMOID,
                                          ATTN_NORMALIZER_LINEAR};
    fill(&keys, KEYS * FEATURES, 17);
    fill(&values, KEYS * FEATURES, 23);
    fill(&queries, MOST_ROWS * FEATURES, 5);
    for (size_t n = 0; n < sizeof normalizers / sizeof normalizers[0]; ++n) {
        const double scale = normalizers[n] == ATTN_NORMALIZER_SOFTMAX ? 1 : KEYS;
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
            double expected[MOST_ROWS * FEATURES];
            float got[MOST_ROWS * FEATURES];
            attend(ATTN_DTYPE_FLOAT64, normalizers[n], lengths[i], expected);
            attend(ATTN_DTYPE_FLOAT32, normalizers[n], lengths[i], got);
            for (int64_t j = 0; j < lengths[i] * FEATURES; ++j) {
                assert_true(fabs(got[j] - expected[j]) <= 1e-6 * scale);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_normalizer_merges_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
