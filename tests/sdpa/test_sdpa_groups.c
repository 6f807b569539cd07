/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_groups.c: ATTN_SDPA_ENABLE_GQA where key and value have no axis of heads, and where
 * there are no heads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { HEADS = 4, ROWS = 3, KEYS = 5, FEATURES = 2, MOST = HEADS * KEYS * FEATURES };

static attn_tensor view_of(float *data, int64_t heads, int64_t rows) {
    const int64_t shape[] = {heads, rows, FEATURES};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 3, shape), ATTN_OK);
    return view;
}

static attn_tensor matrix_of(float *data, int64_t rows) {
    const int64_t shape[] = {rows, FEATURES};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    return view;
}

static attn_status attend(const attn_tensor *query, const attn_tensor *key,
                          const attn_tensor *value, const attn_tensor *output) {
    const attn_sdpa_params params = {.struct_size = sizeof params, .enable_gqa = 1};
    return attn_sdpa(NULL, query, key, value, &params, output, NULL, 0);
}

static void fill(float *values, float step) {
    for (int i = 0; i < MOST; ++i) {
        values[i] = step * (float)(i % 7 - 3);
    }
}

static void matrices_are_one_head_for_all(void **state) {
    (void)state;
    float q[MOST], k[MOST], v[MOST], expected[MOST] = {0}, got[MOST] = {1};
    fill(q, 0.5F);
    fill(k, 0.25F);
    fill(v, 1);
    const attn_tensor query = view_of(q, HEADS, ROWS);
    const attn_tensor key = view_of(k, 1, KEYS), value = view_of(v, 1, KEYS);
    const attn_tensor key_matrix = matrix_of(k, KEYS), value_matrix = matrix_of(v, KEYS);
    const attn_tensor to_expected = view_of(expected, HEADS, ROWS),
                      to_got = view_of(got, HEADS, ROWS);
    assert_int_equal(attend(&query, &key, &value, &to_expected), ATTN_OK);
    assert_int_equal(attend(&query, &key_matrix, &value_matrix, &to_got), ATTN_OK);
    assert_memory_equal(got, expected, HEADS * ROWS * FEATURES * sizeof *got);
    assert_true(expected[0] != 0);
}

static void no_heads_of_query_go_with_any_number_of_key(void **state) {
    (void)state;
    float data[MOST] = {0};
    const attn_tensor query = view_of(NULL, 0, ROWS), output = view_of(NULL, 0, ROWS);
    for (int64_t heads = 0; heads <= 2; ++heads) {
        const attn_tensor key = view_of(data, heads, KEYS);
        assert_int_equal(attend(&query, &key, &key, &output), ATTN_OK);
    }
}

static void heads_of_query_do_not_go_with_none_of_key(void **state) {
    (void)state;
    float data[MOST] = {0};
    float out[MOST];
    const attn_tensor query = view_of(data, HEADS, ROWS), output = view_of(out, HEADS, ROWS);
    const attn_tensor key = view_of(NULL, 0, KEYS);
    assert_int_equal(attend(&query, &key, &key, &output), ATTN_ERROR_SHAPE);
    assert_string_equal(attn_last_error(),
                        "key: expected a number of heads that divides query's 4, got 0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_are_one_head_for_all),
        cmocka_unit_test(no_heads_of_query_go_with_any_number_of_key),
        cmocka_unit_test(heads_of_query_do_not_go_with_none_of_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
