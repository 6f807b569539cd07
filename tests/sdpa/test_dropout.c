/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_dropout.c: which weights attn_dropout drops: the test vectors of sdpa.h, a rate that is the
 * probability, heads, batches, rows, seeds and offsets that have nothing to do with each other, and
 * parts of a larger problem that drop what the whole drops.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/oracle_dropout.h"

enum { BATCHES = 2, HEADS = 3, ROWS = 40, KEYS = 500, COUNT = BATCHES * HEADS * ROWS * KEYS };

static void assert_ok(attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
}

/* Where row, key and so on of a smaller call begin. */
typedef struct part {
    int64_t batches, heads, rows, keys;
} part;

/* Weights of a call whose scores are all 0, in the order (batch, head, row, key): each is 0 or the
 * same number. */
static float *weights_of(const attn_dropout *dropout, part sizes, const char *kernels) {
    const int64_t count = sizes.batches * sizes.heads * sizes.rows * sizes.keys;
    float *weights = calloc((size_t)count, sizeof *weights), zero = 0, *ones, *out;
    attn_tensor query, key, value, output, view;
    const int64_t of_query[] = {sizes.batches, sizes.heads, sizes.rows, 1};
    const int64_t of_key[] = {1, 1, sizes.keys, 1};
    const int64_t of_weights[] = {sizes.batches, sizes.heads, sizes.rows, sizes.keys};
    const int64_t still[] = {0, 0, 0, 0};
    ones = calloc((size_t)sizes.keys, sizeof *ones);
    out = calloc((size_t)(count / sizes.keys), sizeof *out);
    assert_non_null(weights);
    assert_ok(attn_tensor_init_strided(&query, &zero, ATTN_DTYPE_FLOAT32, 4, of_query, still));
    assert_ok(attn_tensor_init(&key, ones, ATTN_DTYPE_FLOAT32, 4, of_key));
    assert_ok(attn_tensor_init(&value, ones, ATTN_DTYPE_FLOAT32, 4, of_key));
    assert_ok(attn_tensor_init(&output, out, ATTN_DTYPE_FLOAT32, 4, of_query));
    assert_ok(attn_tensor_init(&view, weights, ATTN_DTYPE_FLOAT32, 4, of_weights));
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 2, .kernels = kernels};
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .weights = &view, .dropout = dropout};
    attn_context *context;
    assert_ok(attn_context_create(&config, &context));
    assert_ok(attn_sdpa(context, &query, &key, &value, &params, &output, NULL, 0));
    attn_context_destroy(context);
    free(ones);
    free(out);
    return weights;
}

static const part whole = {BATCHES, HEADS, ROWS, KEYS};

static void words_are_those_of_the_test_vectors(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], words[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; ++i) {
        uint32_t words[4];
        oracle_philox(vectors[i].counter, vectors[i].key, words);
        assert_memory_equal(words, vectors[i].words, sizeof words);
    }
    /* The library's own, by what it keeps: those of counter 0 and key 0 lie on either side of these
     * probabilities. */
    const part four = {1, 1, 1, 4};
    const double below = 0x1.99p-2 /* 0x6640... */, above = 0x1.98p-2 /* 0x6600... */;
    const attn_dropout drops = {.struct_size = sizeof drops, .probability = below};
    const attn_dropout keeps = {.struct_size = sizeof keeps, .probability = above};
    float *dropped = weights_of(&drops, four, NULL), *kept = weights_of(&keeps, four, NULL);
    assert_true(dropped[0] == 0 && dropped[1] > 0 && dropped[2] > 0 && dropped[3] > 0);
    assert_true(kept[0] > 0);
    free(dropped);
    free(kept);
}

/* Every kernel set drops what the definition says. */
static void every_kernel_set_drops_the_same(void **state) {
    (void)state;
    const attn_dropout dropout = {.struct_size = sizeof dropout,
                                  .probability = 0.3,
                                  .seed = 0x123456789abcdefU,
                                  .offset = 11,
                                  .batch = ((int64_t)1 << 47) + 5,
                                  .head = 65000,
                                  .row = 4000000000,
                                  .column = ((int64_t)1 << 33) + 3};
    const char *kernels;
    for (int32_t set = 0; (kernels = attn_kernels_name(set)) != NULL; ++set) {
        float *weights = weights_of(&dropout, whole, kernels);
        for (int64_t at = 0; at < COUNT; ++at) {
            const int64_t row = at / KEYS;
            const double factor = oracle_dropout_factor(&dropout, row / ROWS / HEADS,
                                                        row / ROWS % HEADS, row % ROWS, at % KEYS);
            assert_true((weights[at] > 0) == (factor > 0));
        }
        free(weights);
    }
}

/* Of `count` draws with probability p, within 5 standard deviations. */
static void assert_share(const char *of, double hits, double count, double p) {
    const double deviation = sqrt(count * p * (1 - p));
    if (fabs(hits - count * p) > 5 * deviation) {
        fail_msg("%s: expected about %g of %g, got %g", of, count * p, count, hits);
    }
}

/* How many weights are dropped at a place and `step` behind it. */
static double dropped_twice(const float *weights, int64_t step, double *pairs) {
    double both = 0;
    *pairs = 0;
    for (int64_t at = 0; at + step < COUNT; ++at) {
        both += weights[at] == 0 && weights[at + step] == 0;
        ++*pairs;
    }
    return both;
}

static void weights_are_dropped_at_the_rate_and_independently(void **state) {
    (void)state;
    static const double probabilities[] = {0.001, 0.1, 0.5, 0.9};
    static const int64_t steps[] = {1, 2, 4, KEYS, 4 * KEYS, ROWS * KEYS, HEADS * ROWS * KEYS};
    for (int i = 0; i < 4; ++i) {
        const double p = probabilities[i];
        const attn_dropout dropout = {
            .struct_size = sizeof dropout, .probability = p, .seed = 3 + (uint64_t)i};
        float *weights = weights_of(&dropout, whole, NULL);
        double dropped = 0, pairs;
        for (int64_t at = 0; at < COUNT; ++at) {
            dropped += weights[at] == 0;
            const double kept = 1 / (KEYS * (1 - p));
            assert_true(weights[at] == 0 || fabs(weights[at] - kept) < 1e-6 * kept);
        }
        assert_share("rate", dropped, COUNT, p);
        for (int s = 0; s < 7; ++s) {
            const double both = dropped_twice(weights, steps[s], &pairs);
            assert_share("pairs", both, pairs, p * p);
        }
        free(weights);
    }
}

static void seeds_and_offsets_are_streams_of_their_own(void **state) {
    (void)state;
    const attn_dropout streams[] = {
        {.struct_size = sizeof(attn_dropout), .probability = 0.5},
        {.struct_size = sizeof(attn_dropout), .probability = 0.5, .seed = 1},
        {.struct_size = sizeof(attn_dropout), .probability = 0.5, .offset = 1},
        {.struct_size = sizeof(attn_dropout), .probability = 0.5, .seed = 1, .offset = 1},
    };
    float *weights[4];
    for (int i = 0; i < 4; ++i) {
        weights[i] = weights_of(&streams[i], whole, NULL);
    }
    for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < i; ++k) {
            double same = 0;
            for (int64_t at = 0; at < COUNT; ++at) {
                same += (weights[i][at] == 0) == (weights[k][at] == 0);
            }
            assert_share("two streams", same, COUNT, 0.5);
        }
    }
    for (int i = 0; i < 4; ++i) {
        free(weights[i]);
    }
}

static void a_part_drops_what_the_whole_drops(void **state) {
    (void)state;
    const attn_dropout all = {.struct_size = sizeof all, .probability = 0.4, .seed = 5};
    const attn_dropout some = {.struct_size = sizeof some,
                               .probability = 0.4,
                               .seed = 5,
                               .batch = 1,
                               .head = 1,
                               .row = 7,
                               .column = 101};
    const part sizes = {1, 2, 20, 333};
    float *of_all = weights_of(&all, whole, NULL), *of_some = weights_of(&some, sizes, NULL);
    for (int64_t at = 0; at < sizes.heads * sizes.rows * sizes.keys; ++at) {
        const int64_t key = at % sizes.keys + 101, row = at / sizes.keys % sizes.rows + 7;
        const int64_t head = at / sizes.keys / sizes.rows + 1;
        const int64_t in_all = ((1 * HEADS + head) * ROWS + row) * KEYS + key;
        assert_true((of_some[at] == 0) == (of_all[in_all] == 0));
    }
    free(of_all);
    free(of_some);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_those_of_the_test_vectors),
        cmocka_unit_test(every_kernel_set_drops_the_same),
        cmocka_unit_test(weights_are_dropped_at_the_rate_and_independently),
        cmocka_unit_test(seeds_and_offsets_are_streams_of_their_own),
        cmocka_unit_test(a_part_drops_what_the_whole_drops),
    };
    return cmocka_run_group_tests_name("dropout", tests, NULL, NULL);
}
