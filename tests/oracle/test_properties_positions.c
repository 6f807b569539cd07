/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_positions.c: two ways to write the same positions, which give the same bits:
 * align_end or the offsets that it stands for, indices of 32 bits or of 64.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

enum { BATCH = 3 };

/* More rows than keys of some sequences; few enough rows to go by rows; so many keys that they are
 * split. */
static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, BATCH, 4, 2, 21, 34, 8, 8},
    {ATTN_DTYPE_FLOAT32, BATCH, 2, 2, 3, 4500, 8, 5},
    {ATTN_DTYPE_FLOAT64, BATCH, 2, 1, 34, 21, 8, 9},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0] };

/* One number for each sequence, as its key length. */
static attn_tensor *make_lengths(tensor_pool *pool, int32_t dtype, int64_t keys) {
    const int64_t batch = BATCH, lengths[BATCH] = {keys, keys / 2, 1};
    attn_tensor *tensor = pool_input(pool, dtype, 1, &batch, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < BATCH; ++b) {
        oracle_store_integer(tensor, &b, lengths[b]);
    }
    return tensor;
}

/* lengths - rows, or keys - rows without lengths. */
static attn_tensor *make_offsets(tensor_pool *pool, int32_t dtype, const attn_tensor *lengths,
                                 int64_t rows, int64_t keys) {
    const int64_t batch = BATCH;
    attn_tensor *tensor = pool_input(pool, dtype, 1, &batch, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < BATCH; ++b) {
        const int64_t end = lengths != NULL ? oracle_integer(lengths, &b) : keys;
        oracle_store_integer(tensor, &b, end - rows);
    }
    return tensor;
}

/* What positions matter to: causality, a window and ALiBi, by turns and together. */
static void set_options(int options, tensor_pool *pool, random_state *random, int64_t heads,
                        attn_sdpa_params *params) {
    params->is_causal = options & 1;
    if (options & 2) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = 7;
        params->window_right = 2;
    }
    if (options & 4) {
        attn_tensor *slopes = pool_input(pool, ATTN_DTYPE_FLOAT32, 1, &heads, LAYOUT_CONTIGUOUS);
        random_fill(slopes, random, -0.2, 0.5, 0);
        params->alibi_slopes = slopes;
    }
}

enum { ENDS_ALIGNED, OFFSETS_64, OFFSETS_32, NUM_WAYS };

static void set_way(int way, tensor_pool *pool, int has_lengths, int64_t rows, int64_t keys,
                    attn_sdpa_params *params) {
    const int32_t dtype = way == OFFSETS_64 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32;
    params->key_lengths = has_lengths ? make_lengths(pool, dtype, keys) : NULL;
    params->align_end = way == ENDS_ALIGNED;
    params->query_offset =
        way == ENDS_ALIGNED ? NULL : make_offsets(pool, dtype, params->key_lengths, rows, keys);
}

static void check_sdpa(attn_context *context, const sdpa_sizes *sizes, int options,
                       int has_lengths) {
    sdpa_setup setups[NUM_WAYS];
    for (int way = 0; way < NUM_WAYS; ++way) {
        sdpa_setup *setup = &setups[way];
        sdpa_setup_create(setup, sizes, 431);
        set_options(options, &setup->pool, &setup->random, sizes->heads, &setup->params);
        set_way(way, &setup->pool, has_lengths, sizes->rows, sizes->keys, &setup->params);
        sdpa_setup_run(context, setup);
        assert_same_bits("output", setup->output, setups[0].output);
        assert_same_bits("weights", setup->weights, setups[0].weights);
        assert_same_bits("lse", setup->lse, setups[0].lse);
    }
    oracle_result expected = sdpa_setup_expect(&setups[OFFSETS_64]);
    assert_sdpa_equals(&setups[ENDS_ALIGNED], &expected);
    oracle_result_destroy(&expected);
    for (int way = 0; way < NUM_WAYS; ++way) {
        sdpa_setup_destroy(&setups[way]);
    }
}

static void aligned_ends_are_offsets_written_out(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        const attn_context_config config = {.struct_size = sizeof config,
                                            .num_threads = 2,
                                            .engine = engine,
                                            .gemm = ATTN_GEMM_NATIVE};
        attn_context *context;
        assert_ok(attn_context_create(&config, &context));
        for (int i = 0; i < NUM_SIZES; ++i) {
            const int is_computed =
                engine != ATTN_ENGINE_FUSED || all_sizes[i].dtype == ATTN_DTYPE_FLOAT32;
            for (int options = 0; is_computed && options < 8; ++options) {
                check_sdpa(context, &all_sizes[i], options, 0);
                check_sdpa(context, &all_sizes[i], options, 1);
            }
        }
        attn_context_destroy(context);
    }
}

/* Extra columns have no position and are no part of the key length. */
static void aligned_ends_of_a_layer_are_offsets_written_out(void **state) {
    (void)state;
    static const attn_mha_config config = {.struct_size = sizeof config,
                                           .embed_dim = 12,
                                           .num_heads = 3,
                                           .add_bias_kv = 1,
                                           .add_zero_attn = 1};
    const int64_t rows = 9, keys = 17;
    attn_context *context = native_context(2);
    for (int options = 0; options < 16; ++options) {
        mha_setup setups[NUM_WAYS];
        for (int way = 0; way < NUM_WAYS; ++way) {
            mha_setup *setup = &setups[way];
            mha_setup_create(setup, &config, BATCH, rows, keys, 433);
            set_options(options, &setup->pool, &setup->random, config.num_heads, &setup->attention);
            set_way(way, &setup->pool, options >= 8, rows, keys, &setup->attention);
            mha_setup_run(context, setup);
            assert_same_bits("output", setup->output, setups[0].output);
            assert_same_bits("weights", setup->weights, setups[0].weights);
        }
        for (int way = 0; way < NUM_WAYS; ++way) {
            mha_setup_destroy(&setups[way]);
        }
    }
    attn_context_destroy(context);
}

static void softmax_lengths_of_32_bits_are_those_of_64(void **state) {
    (void)state;
    const int64_t shape[] = {BATCH, 29};
    attn_tensor *outputs[2], *input;
    tensor_pool pool = {0};
    random_state random = random_seeded(439);
    input = pool_input(&pool, ATTN_DTYPE_FLOAT32, 2, shape, LAYOUT_CONTIGUOUS);
    random_fill(input, &random, -3, 3, 0);
    for (int i = 0; i < 2; ++i) {
        const attn_softmax_params params = {
            .struct_size = sizeof params,
            .lengths = make_lengths(&pool, i == 0 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32, 29)};
        outputs[i] = pool_output(&pool, ATTN_DTYPE_FLOAT32, 2, shape, LAYOUT_CONTIGUOUS);
        assert_ok(attn_softmax(NULL, input, &params, outputs[i], NULL, 0));
    }
    assert_same_bits("output", outputs[1], outputs[0]);
    pool_destroy(&pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_ends_are_offsets_written_out),
        cmocka_unit_test(aligned_ends_of_a_layer_are_offsets_written_out),
        cmocka_unit_test(softmax_lengths_of_32_bits_are_those_of_64),
    };
    return cmocka_run_group_tests_name("properties of positions", tests, NULL, NULL);
}
