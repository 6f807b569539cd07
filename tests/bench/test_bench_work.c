/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_bench_work.c: useful work, compared with pairs counted one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bench_block_mask.h"
#include "bench_options.h"
#include "bench_work.h"

/* Completed options of a command line of `count` words. */
static bench_options options_of(int function, int count, const char *const *words) {
    char *arguments[32];
    bench_options options = bench_options_default(function);
    assert_true(count <= 32);
    for (int i = 0; i < count; i++) {
        arguments[i] = (char *)(uintptr_t)words[i];
    }
    assert_int_equal(bench_options_parse(&options, 0, count, arguments), 0);
    assert_int_equal(bench_options_complete(&options), 0);
    return options;
}

/* As sdpa.h defines visibility, for one pair. */
static int is_visible(const bench_options *o, int64_t length, int64_t query, int64_t key) {
    const int64_t position = query + o->query_offset.value;
    const int64_t left = o->window_text == NULL ? -1 : o->window[0];
    const int64_t right = o->window_text == NULL ? -1 : o->window[1];
    return key < length && (!o->is_causal || key <= position) &&
           (left < 0 || key >= position - left) && (right < 0 || key <= position + right) &&
           (o->blocks == BENCH_BLOCKS_NONE ||
            bench_block_shows(o, query / o->block_rows.value, key / o->block_columns.value));
}

static void assert_counts(const bench_options *o) {
    int64_t pairs = 0;
    int64_t keys = 0;
    for (int64_t b = 0; b < o->batch.value; b++) {
        const int64_t length = o->key_lengths.text == NULL
                                   ? o->keys.value
                                   : o->key_lengths.items[b % o->key_lengths.count];
        for (int64_t key = 0; key < o->keys.value; key++) {
            int64_t seen = 0;
            for (int64_t query = 0; query < o->queries.value; query++) {
                seen += is_visible(o, length, query, key);
            }
            pairs += seen;
            keys += seen != 0;
        }
    }
    const bench_work work = bench_work_of(o);
    assert_int_equal(work.visible_pairs, pairs);
    assert_int_equal(work.visible_keys, keys);
    const double scores = (double)(pairs * o->heads.value);
    assert_true(work.flops == 2.0 * (double)(o->head_dim.value + o->value_dim.value) * scores);
    assert_true(work.exponentials == scores);
    assert_true(work.bytes == 4.0 * (double)(keys * o->kv_heads.value *
                                             (o->head_dim.value + o->value_dim.value)));
}

static void pairs_of_every_option_are_those_counted_one_by_one(void **state) {
    (void)state;
    static const char *const offsets[] = {"-9", "-3", "0", "4", "30"};
    static const char *const windows[] = {"-1,-1", "0,0", "3,2", "-1,4", "5,-1", "2,0"};
    static const char *const lengths[] = {"0.0", "5", "13,7,0", "1.0", "0.5"};
    for (size_t offset = 0; offset < 5; offset++) {
        for (size_t window = 0; window < 6; window++) {
            for (size_t length = 0; length < 5; length++) {
                const char *words[] = {"--batch",
                                       "3",
                                       "--heads",
                                       "4",
                                       "--kv-heads",
                                       "2",
                                       "--queries",
                                       "11",
                                       "--keys",
                                       "13",
                                       "--head-dim",
                                       "5",
                                       "--value-dim",
                                       "3",
                                       "--window",
                                       windows[window],
                                       "--query-offset",
                                       offsets[offset],
                                       "--key-lengths",
                                       lengths[length],
                                       "--causal",
                                       "--block-mask",
                                       "0.4",
                                       "--block-rows",
                                       "4",
                                       "--block-columns",
                                       "3"};
                for (int count = 20; count <= 21; count++) {
                    const bench_options options = options_of(BENCH_SDPA, count, words);
                    assert_counts(&options);
                }
                const bench_options blocks = options_of(BENCH_SDPA, 27, words);
                assert_counts(&blocks);
            }
        }
    }
}

static void plain_attention_is_four_b_h_l_s_d(void **state) {
    (void)state;
    const char *words[] = {"--batch", "2",      "--heads", "3",          "--queries",
                           "7",       "--keys", "9",       "--head-dim", "16"};
    const bench_options options = options_of(BENCH_SDPA, 10, words);
    assert_true(bench_work_of(&options).flops == 4.0 * 2 * 3 * 7 * 9 * 16);
}

static void a_layer_adds_its_four_products(void **state) {
    (void)state;
    const char *words[] = {"--batch",     "2", "--heads",     "4", "--kv-heads", "2",
                           "--queries",   "7", "--keys",      "9", "--head-dim", "5",
                           "--value-dim", "3", "--embed-dim", "10"};
    const bench_options options = options_of(BENCH_MHA, 16, words);
    const bench_work work = bench_work_of(&options);
    const double attention = 2.0 * (5 + 3) * 2 * 7 * 9 * 4;
    const double products = 2.0 * 2 * (7 * 10 * 20 + 9 * 10 * 10 + 9 * 10 * 6 + 7 * 12 * 10);
    const double parameters = (20 + 10 + 6) * 11 + 10 * 12 + 10;
    assert_true(work.flops == attention + products);
    assert_true(work.bytes == 4.0 * (parameters + 2 * 7 * 10 + 2 * 9 * 10));
    bench_options backward = options;
    backward.is_backward = 1;
    const double of_attention = 2.0 * (3 * 5 + 2 * 3) * 2 * 7 * 9 * 4;
    assert_true(bench_work_of(&backward).flops == of_attention + 2 * products);
}

static void linear_attention_has_no_exponentials(void **state) {
    (void)state;
    const char *words[] = {"--normalizer", "linear"};
    bench_options options = options_of(BENCH_SDPA, 2, words);
    assert_true(bench_work_of(&options).exponentials == 0.0);
    words[1] = "sigmoid";
    options = options_of(BENCH_SDPA, 2, words);
    assert_true(bench_work_of(&options).exponentials == 12.0 * 512 * 512);
}

/* 64 GF/s with two threads of 32 flop a cycle: 1 GHz. */
static void the_bound_adds_a_cycle_for_each_exponential(void **state) {
    (void)state;
    const bench_work work = {.flops = 64e9, .exponentials = 1e9};
    assert_true(bench_cycle_hz(64e9, 32, 2) == 1e9);
    assert_true(bench_bound_seconds(&work, 64e9, 32, 2) == 1.0 + 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_of_every_option_are_those_counted_one_by_one),
        cmocka_unit_test(plain_attention_is_four_b_h_l_s_d),
        cmocka_unit_test(a_layer_adds_its_four_products),
        cmocka_unit_test(linear_attention_has_no_exponentials),
        cmocka_unit_test(the_bound_adds_a_cycle_for_each_exponential),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
