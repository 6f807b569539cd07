/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_kv_append.c: new rows are where kv.h says, rounded once, and nothing else has changed: random
 * calls over every kind of cache, every two types, layouts and ways to say where rows go; and large
 * calls, which several threads share.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "append_case.h"

enum { NUM_CASES = 3000 };

static void check_part(const append_case *built, int part, uint64_t seed) {
    const attn_tensor *cached = built->cached[part];
    double *found = oracle_expand(cached, cached->rank, cached->shape);
    for (int64_t i = 0; i < oracle_count(cached->rank, cached->shape); ++i) {
        if (memcmp(&found[i], &built->expected[part][i], sizeof found[i]) != 0) {
            fail_msg("case %llu, kind %d, %s: element %lld: expected %.17g, got %.17g",
                     (unsigned long long)seed, built->kind, part == 0 ? "key" : "value",
                     (long long)i, built->expected[part][i], found[i]);
        }
    }
    free(found);
}

static void rows_are_stored_where_they_belong(void **state) {
    static append_case built;
    (void)state;
    for (uint64_t seed = 1; seed <= NUM_CASES; ++seed) {
        char message[200];
        append_case_build(&built, seed);
        pool_begin(&built.pool);
        if (attn_kv_append(NULL, &built.kv, built.new_rows[0], built.new_rows[1], &built.params) !=
            ATTN_OK) {
            fail_msg("case %llu: %s", (unsigned long long)seed, attn_last_error());
        }
        if (pool_check(&built.pool, message, sizeof message) != 0) {
            fail_msg("case %llu: %s", (unsigned long long)seed, message);
        }
        check_part(&built, 0, seed);
        check_part(&built, 1, seed);
        append_case_destroy(&built);
    }
}

static void threads_share_a_large_call(void **state) {
    enum { B = 3, H = 4, L = 200, C = 300, E = 64 };
    static float new_rows[B * H * L * E];
    static uint16_t key[B * H * C * E];
    static float value[B * H * C * E];
    static const int64_t lengths[B] = {200, 300, 251};
    (void)state;
    for (int64_t i = 0; i < B * H * L * E; ++i) {
        new_rows[i] = (float)(i % 251 - 100);
    }
    attn_context *context = NULL;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 4};
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    const int64_t shape[] = {B, H, L, E}, cached[] = {B, H, C, E}, batch[] = {B};
    attn_tensor rows, keys, values, in_use;
    assert_int_equal(attn_tensor_init(&rows, new_rows, ATTN_DTYPE_FLOAT32, 4, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&keys, key, ATTN_DTYPE_BFLOAT16, 4, cached), ATTN_OK);
    assert_int_equal(attn_tensor_init(&values, value, ATTN_DTYPE_FLOAT32, 4, cached), ATTN_OK);
    assert_int_equal(
        attn_tensor_init(&in_use, (void *)(uintptr_t)lengths, ATTN_DTYPE_INT64, 1, batch), ATTN_OK);
    const attn_kv kv = {
        .struct_size = sizeof kv, .key = &keys, .value = &values, .lengths = &in_use};
    assert_int_equal(attn_kv_append(context, &kv, &rows, &rows, NULL), ATTN_OK);
    for (int64_t i = 0; i < B * H * C * E; ++i) {
        const int64_t e = i % E, j = i / E % C, head = i / E / C % H, b = i / E / C / H;
        const int64_t row = j - (lengths[b] - L);
        const int is_new = row >= 0 && row < L;
        const double expected = is_new ? (double)new_rows[((b * H + head) * L + row) * E + e] : 0;
        const int64_t index[] = {b, head, j, e};
        assert_true(oracle_element(&keys, index) == expected);
        assert_true(oracle_element(&values, index) == expected);
    }
    attn_context_destroy(context);
}

/* Where there is no element to store, no row is looked up: more of them than the length go unseen. */
static void no_heads_or_features_store_nothing(void **state) {
    static const struct nothing {
        int64_t heads;
        int64_t features;
    } nothings[] = {{0, 4}, {2, 0}};
    (void)state;
    for (int which = 0; which < 2; ++which) {
        const struct nothing *none = &nothings[which];
        const int64_t shape[] = {none->heads, 3, none->features};
        const int64_t cached[] = {none->heads, 2, none->features};
        int64_t length = 1;
        attn_tensor rows, cache, lengths;
        assert_int_equal(attn_tensor_init(&rows, NULL, ATTN_DTYPE_FLOAT32, 3, shape), ATTN_OK);
        assert_int_equal(attn_tensor_init(&cache, NULL, ATTN_DTYPE_FLOAT32, 3, cached), ATTN_OK);
        assert_int_equal(attn_tensor_init(&lengths, &length, ATTN_DTYPE_INT64, 0, NULL), ATTN_OK);
        const attn_kv kv = {
            .struct_size = sizeof kv, .key = &cache, .value = &cache, .lengths = &lengths};
        assert_int_equal(attn_kv_append(NULL, &kv, &rows, &rows, NULL), ATTN_OK);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_stored_where_they_belong),
        cmocka_unit_test(threads_share_a_large_call),
        cmocka_unit_test(no_heads_or_features_store_nothing),
    };
    return cmocka_run_group_tests_name("kv_append", tests, NULL, NULL);
}
