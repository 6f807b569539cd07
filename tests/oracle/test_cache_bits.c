/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_cache_bits.c: a cache for many sequences, hardly used: 64 of at most 64 keys each, in a cache
 * for 65,536, have the bits that each has alone in a cache for 64, by 1 to 7 threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

enum {
    CACHED = 64,
    CACHE_HEADS = 4,
    CACHE_FEATURES = 8,
    SMALL_CAPACITY = 64,
    LARGE_CAPACITY = 65536
};

/* The memory of keys or values of CACHED sequences; what is never written stays untouched pages. */
static float *cache_create(int64_t capacity) {
    return oracle_allocate(CACHED * capacity * CACHE_FEATURES, sizeof(float));
}

static void cache_fill(float *small, float *large, const int32_t *lengths, random_state *random) {
    for (int64_t sequence = 0; sequence < CACHED; ++sequence) {
        for (int64_t i = 0; i < lengths[sequence] * CACHE_FEATURES; ++i) {
            const float number = (float)random_real(random, -1, 1);
            small[sequence * SMALL_CAPACITY * CACHE_FEATURES + i] = number;
            large[sequence * LARGE_CAPACITY * CACHE_FEATURES + i] = number;
        }
    }
}

/* `count` sequences from `first` on. */
static void attend_cached(attn_context *context, const float *query, const float *key,
                          const float *value, int64_t capacity, int64_t first, int64_t count,
                          const int32_t *lengths, float *output) {
    const int64_t rows[] = {count, CACHE_HEADS, 1, CACHE_FEATURES};
    const int64_t keys[] = {count, 1, capacity, CACHE_FEATURES};
    const int64_t skipped = first * capacity * CACHE_FEATURES;
    attn_tensor q, k, v, o, l;
    assert_ok(attn_tensor_init(&q, (float *)(uintptr_t)query + first * CACHE_HEADS * CACHE_FEATURES,
                               ATTN_DTYPE_FLOAT32, 4, rows));
    assert_ok(attn_tensor_init(&k, (float *)(uintptr_t)key + skipped, ATTN_DTYPE_FLOAT32, 4, keys));
    assert_ok(
        attn_tensor_init(&v, (float *)(uintptr_t)value + skipped, ATTN_DTYPE_FLOAT32, 4, keys));
    assert_ok(attn_tensor_init(&o, output + first * CACHE_HEADS * CACHE_FEATURES,
                               ATTN_DTYPE_FLOAT32, 4, rows));
    assert_ok(
        attn_tensor_init(&l, (int32_t *)(uintptr_t)lengths + first, ATTN_DTYPE_INT32, 1, &count));
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .enable_gqa = 1,
                                     .is_causal = 1,
                                     .align_end = 1,
                                     .key_lengths = &l};
    assert_ok(attn_sdpa(context, &q, &k, &v, &params, &o, NULL, 0));
}

static void
sixty_four_sequences_in_a_cache_for_65536_keys_have_the_bits_of_each_alone(void **state) {
    (void)state;
    enum { NUMBERS = CACHED * CACHE_HEADS * CACHE_FEATURES };
    static float query[NUMBERS], alone[NUMBERS], batched[NUMBERS];
    int32_t lengths[CACHED];
    random_state random = random_seeded(5);
    float *keys[] = {cache_create(SMALL_CAPACITY), cache_create(LARGE_CAPACITY)};
    float *values[] = {cache_create(SMALL_CAPACITY), cache_create(LARGE_CAPACITY)};
    for (int i = 0; i < NUMBERS; ++i) {
        query[i] = (float)random_real(&random, -1, 1);
    }
    for (int i = 0; i < CACHED; ++i) {
        lengths[i] = (int32_t)random_between(&random, 0, SMALL_CAPACITY);
    }
    cache_fill(keys[0], keys[1], lengths, &random);
    cache_fill(values[0], values[1], lengths, &random);
    for (int32_t threads = 1; threads <= 7; ++threads) {
        attn_context *context = native_context(threads);
        for (int64_t i = 0; threads == 1 && i < CACHED; ++i) {
            attend_cached(context, query, keys[0], values[0], SMALL_CAPACITY, i, 1, lengths, alone);
        }
        memset(batched, 0x33, sizeof batched);
        attend_cached(context, query, keys[1], values[1], LARGE_CAPACITY, 0, CACHED, lengths,
                      batched);
        assert_memory_equal(batched, alone, sizeof alone);
        attn_context_destroy(context);
    }
    for (int i = 0; i < 2; ++i) {
        free(keys[i]);
        free(values[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            sixty_four_sequences_in_a_cache_for_65536_keys_have_the_bits_of_each_alone),
    };
    return cmocka_run_group_tests_name("cache_bits", tests, NULL, NULL);
}
