/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_scores.c: scores of more rows and keys than one block of them, against the
 * oracle; and their bits: the same beside every engine, in every layout, batch and capacity, by any
 * number of threads, while those of the other outputs are what they are without scores.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

enum { BATCH = 2 };

static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, BATCH, 2, 1, 130, 530, 9, 5},
    {ATTN_DTYPE_FLOAT64, BATCH, 2, 2, 100, 300, 8, 3},
    {ATTN_DTYPE_BFLOAT16, BATCH, 4, 2, 97, 257, 16, 4},
    {ATTN_DTYPE_FLOAT16, BATCH, 1, 1, 1, 1100, 33, 8},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0], NUM_STAGES = 3 };

static int32_t score_type(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

/* Everything that changes scores or hides keys; heads far from keys; a sequence with fewer keys. */
static void set_options(sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t batch = BATCH, shape[] = {s->rows, s->keys};
    attn_sdpa_params *params = &setup->params;
    tensor_pool *pool = &setup->pool;
    attn_tensor *lengths = pool_input(pool, ATTN_DTYPE_INT32, 1, &batch, LAYOUT_CONTIGUOUS);
    attn_tensor *slopes = pool_input(pool, ATTN_DTYPE_FLOAT32, 1, &s->heads, LAYOUT_CONTIGUOUS);
    attn_tensor *mask = pool_input(pool, ATTN_DTYPE_BOOL, 2, shape, LAYOUT_CONTIGUOUS);
    attn_tensor *bias = pool_input(pool, s->dtype, 2, shape, LAYOUT_CONTIGUOUS);
    oracle_store_integer(lengths, (const int64_t[]){0}, s->keys - 7);
    oracle_store_integer(lengths, (const int64_t[]){1}, s->keys / 2 + 3);
    random_fill(slopes, &setup->random, 0, 0.1, 0);
    random_fill_bool(mask, &setup->random, 0.7);
    random_fill(bias, &setup->random, -2, 2, 0);
    params->key_lengths = lengths;
    params->alibi_slopes = slopes;
    params->mask = mask;
    params->mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    params->bias = bias;
    params->softcap = 0.8;
    params->is_causal = 1;
    params->align_end = 1;
    params->set = ATTN_SDPA_SET_WINDOW;
    params->window_left = s->keys / 2;
    params->window_right = -1;
}

static attn_tensor *add_scores(sdpa_setup *setup, int32_t stage, enum tensor_layout layout) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->batch, s->heads, s->rows, s->keys};
    attn_tensor *scores = pool_output(&setup->pool, score_type(s->dtype), 4, shape, layout);
    setup->params.scores = scores;
    setup->params.scores_stage = stage;
    return scores;
}

static void scores_of_many_blocks_are_within_the_error_bound(void **state) {
    (void)state;
    attn_context *context = native_context(2);
    for (int i = 0; i < NUM_SIZES; ++i) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[i], 811);
        set_options(&setup);
        for (int32_t stage = 0; stage < NUM_STAGES; ++stage) {
            const attn_tensor *scores = add_scores(&setup, stage, LAYOUT_CONTIGUOUS);
            sdpa_setup_run(context, &setup);
            oracle_result expected = sdpa_setup_expect(&setup);
            assert_close("scores", scores, &expected.scores);
            oracle_result_destroy(&expected);
        }
        sdpa_setup_destroy(&setup);
    }
    attn_context_destroy(context);
}

static attn_context *context_of(int32_t engine, int32_t num_threads, const char *kernels) {
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = num_threads,
                                        .engine = engine,
                                        .gemm = ATTN_GEMM_NATIVE,
                                        .kernels = kernels};
    attn_context *context;
    assert_ok(attn_context_create(&config, &context));
    return context;
}

/* In the layout, by another engine and more threads. */
static void check_layout(const sdpa_setup *made, const attn_tensor *expected, attn_context *context,
                         enum tensor_layout layout) {
    sdpa_setup setup = *made;
    setup.pool = (tensor_pool){0};
    const attn_tensor *scores = add_scores(&setup, made->params.scores_stage, layout);
    sdpa_setup_run(context, &setup);
    assert_same_bits("scores", scores, expected);
    pool_destroy(&setup.pool);
}

/* Batch `b` alone, its keys cut off where they end. */
static void check_alone(const sdpa_setup *made, const attn_tensor *expected, int64_t b) {
    sdpa_setup setup = *made;
    setup.pool = (tensor_pool){0};
    attn_tensor query, key, value, output, lse, weights, bias, mask, all = *expected;
    const int64_t length = oracle_integer(made->params.key_lengths, &b);
    assert_ok(attn_tensor_slice(made->query, 0, b, 1, 1, &query));
    assert_ok(attn_tensor_slice(made->key, 0, b, 1, 1, &key));
    assert_ok(attn_tensor_slice(made->value, 0, b, 1, 1, &value));
    assert_ok(attn_tensor_slice(made->output, 0, b, 1, 1, &output));
    assert_ok(attn_tensor_slice(made->lse, 0, b, 1, 1, &lse));
    assert_ok(attn_tensor_slice(made->weights, 0, b, 1, 1, &weights));
    assert_ok(attn_tensor_slice(&all, 0, b, 1, 1, &all));
    assert_ok(attn_tensor_slice(&key, 2, 0, length, 1, &key));
    assert_ok(attn_tensor_slice(&value, 2, 0, length, 1, &value));
    assert_ok(attn_tensor_slice(&weights, 3, 0, length, 1, &weights));
    assert_ok(attn_tensor_slice(&all, 3, 0, length, 1, &all));
    assert_ok(attn_tensor_slice(made->params.mask, 1, 0, length, 1, &mask));
    assert_ok(attn_tensor_slice(made->params.bias, 1, 0, length, 1, &bias));
    setup.query = &query;
    setup.key = &key;
    setup.value = &value;
    setup.output = &output;
    setup.params.lse = &lse;
    setup.params.weights = &weights;
    setup.params.mask = &mask;
    setup.params.bias = &bias;
    setup.params.key_lengths = NULL;
    setup.sizes.batch = 1;
    setup.sizes.keys = length;
    const attn_tensor *scores = add_scores(&setup, made->params.scores_stage, LAYOUT_CONTIGUOUS);
    sdpa_setup_run(NULL, &setup);
    assert_same_bits("scores alone", scores, &all);
    pool_destroy(&setup.pool);
}

static void scores_have_bits_of_their_own(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SIZES; ++i) {
        const int is_double = all_sizes[i].dtype == ATTN_DTYPE_FLOAT64;
        attn_context *alone = context_of(ATTN_ENGINE_AUTO, 1, NULL);
        attn_context *contexts[] = {
            context_of(ATTN_ENGINE_BLAS, 3, NULL),
            context_of(is_double ? ATTN_ENGINE_AUTO : ATTN_ENGINE_FUSED, 2, NULL)};
        sdpa_setup setup;
        sdpa_setup_create(&setup, &all_sizes[i], 821);
        set_options(&setup);
        for (int32_t stage = 0; stage < NUM_STAGES; ++stage) {
            const attn_tensor *expected = add_scores(&setup, stage, LAYOUT_CONTIGUOUS);
            sdpa_setup_run(alone, &setup);
            for (int layout = 0; layout < LAYOUT_NUM_OUTPUT; ++layout) {
                check_layout(&setup, expected, contexts[layout % 2], (enum tensor_layout)layout);
            }
            for (int64_t b = 0; b < BATCH; ++b) {
                check_alone(&setup, expected, b);
            }
        }
        sdpa_setup_destroy(&setup);
        attn_context_destroy(alone);
        attn_context_destroy(contexts[0]);
        attn_context_destroy(contexts[1]);
    }
}

static attn_tensor *offset_of(tensor_pool *pool, int64_t number) {
    attn_tensor *offset = pool_input(pool, ATTN_DTYPE_INT64, 0, NULL, LAYOUT_CONTIGUOUS);
    oracle_store_integer(offset, NULL, number);
    return offset;
}

/* So far from the keys that distances are rounded, rows have the same bits without those before
 * them, by which a window shows other keys first. */
static void rows_far_from_the_keys_have_bits_of_their_own(void **state) {
    (void)state;
    enum { FAR = 1 << 30, SKIPPED = 5, ROWS = 20, KEYS = 300, BEGIN = 40 };
    const sdpa_sizes sizes = {ATTN_DTYPE_FLOAT32, 1, 2, 2, ROWS, KEYS, 8, 4};
    const int64_t heads = 2;
    sdpa_setup setup;
    sdpa_setup_create(&setup, &sizes, 827);
    attn_tensor *slopes = pool_input(&setup.pool, sizes.dtype, 1, &heads, LAYOUT_CONTIGUOUS);
    random_fill(slopes, &setup.random, 0.5, 1, 0);
    setup.params.lse = setup.params.weights = NULL;
    setup.params.alibi_slopes = slopes;
    setup.params.set = ATTN_SDPA_SET_WINDOW;
    setup.params.window_left = FAR - BEGIN;
    setup.params.window_right = -1;
    setup.params.query_offset = offset_of(&setup.pool, FAR);
    const attn_tensor *all = add_scores(&setup, ATTN_SCORE_MASKED, LAYOUT_CONTIGUOUS);
    sdpa_setup_run(NULL, &setup);
    attn_tensor query, output, expected;
    assert_ok(attn_tensor_slice(setup.query, 2, SKIPPED, ROWS - SKIPPED, 1, &query));
    assert_ok(attn_tensor_slice(setup.output, 2, SKIPPED, ROWS - SKIPPED, 1, &output));
    assert_ok(attn_tensor_slice(all, 2, SKIPPED, ROWS - SKIPPED, 1, &expected));
    setup.query = &query;
    setup.output = &output;
    setup.sizes.rows = ROWS - SKIPPED;
    setup.params.query_offset = offset_of(&setup.pool, FAR + SKIPPED);
    const attn_tensor *alone = add_scores(&setup, ATTN_SCORE_MASKED, LAYOUT_CONTIGUOUS);
    sdpa_setup_run(NULL, &setup);
    assert_same_bits("scores", alone, &expected);
    sdpa_setup_destroy(&setup);
}

/* Beside scores the other outputs have the bits they have without. */
static void other_outputs_are_the_same_beside_scores(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SIZES; ++i) {
        sdpa_setup plain, asked;
        sdpa_setup_create(&plain, &all_sizes[i], 823);
        sdpa_setup_create(&asked, &all_sizes[i], 823);
        set_options(&plain);
        set_options(&asked);
        add_scores(&asked, i % NUM_STAGES, LAYOUT_CONTIGUOUS);
        sdpa_setup_run(NULL, &plain);
        sdpa_setup_run(NULL, &asked);
        assert_same_bits("output", asked.output, plain.output);
        assert_same_bits("lse", asked.lse, plain.lse);
        assert_same_bits("weights", asked.weights, plain.weights);
        sdpa_setup_destroy(&plain);
        sdpa_setup_destroy(&asked);
    }
}

/* Keys that no row sees have scores before the mask, and nobody asks for an output: Ev = 0. */
static void scores_alone_are_written(void **state) {
    (void)state;
    float query[2] = {1, 2}, key[3] = {3, NAN, 5}, scores[2][3];
    const int64_t rows[] = {2, 1}, keys[] = {3, 1}, no_value[] = {3, 0}, no_output[] = {2, 0};
    const int64_t matrix[] = {2, 3};
    attn_tensor views[5];
    assert_ok(attn_tensor_init(&views[0], query, ATTN_DTYPE_FLOAT32, 2, rows));
    assert_ok(attn_tensor_init(&views[1], key, ATTN_DTYPE_FLOAT32, 2, keys));
    assert_ok(attn_tensor_init(&views[2], NULL, ATTN_DTYPE_FLOAT32, 2, no_value));
    assert_ok(attn_tensor_init(&views[3], NULL, ATTN_DTYPE_FLOAT32, 2, no_output));
    assert_ok(attn_tensor_init(&views[4], scores, ATTN_DTYPE_FLOAT32, 2, matrix));
    attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1, .scores = &views[4]};
    assert_ok(attn_sdpa(NULL, &views[0], &views[1], &views[2], &params, &views[3], NULL, 0));
    assert_true(scores[0][0] == 3 && isnan(scores[0][1]) && scores[0][2] == 5);
    assert_true(scores[1][0] == 6 && isnan(scores[1][1]) && scores[1][2] == 10);
    params.scores_stage = ATTN_SCORE_MASKED;
    assert_ok(attn_sdpa(NULL, &views[0], &views[1], &views[2], &params, &views[3], NULL, 0));
    assert_true(scores[0][0] == 3 && scores[0][1] == -INFINITY && scores[0][2] == -INFINITY);
    assert_true(scores[1][0] == 6 && isnan(scores[1][1]) && scores[1][2] == -INFINITY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_of_many_blocks_are_within_the_error_bound),
        cmocka_unit_test(scores_have_bits_of_their_own),
        cmocka_unit_test(rows_far_from_the_keys_have_bits_of_their_own),
        cmocka_unit_test(other_outputs_are_the_same_beside_scores),
        cmocka_unit_test(scores_alone_are_written),
    };
    return cmocka_run_group_tests_name("properties of scores", tests, NULL, NULL);
}
