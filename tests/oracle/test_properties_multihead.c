/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_multihead.c: calls of attn_mha_forward that must agree: forms of the input, ways
 * to set the same option, the layer and the steps it consists of.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

enum { ROWS = 13, KEYS = 17 };

static const attn_mha_config plain_config = {
    .struct_size = sizeof(attn_mha_config), .embed_dim = 24, .num_heads = 4};
static const attn_mha_config rich_config = {
    .struct_size = sizeof(attn_mha_config),
    .embed_dim = 15,
    .num_heads = 6,
    .kdim = 9,
    .vdim = 11,
    .qdim = 7,
    .num_kv_heads = 2,
    .head_dim = 5,
    .value_head_dim = 4,
    .dtype = ATTN_DTYPE_FLOAT64,
    .add_bias_kv = 1,
    .add_zero_attn = 1,
};
static const attn_mha_config *const configs[] = {&plain_config, &rich_config};
enum { NUM_CONFIGS = 2 };

/* Output and per-head weights of the setup are those of `expected`, batch first. */
static void assert_mha_equals(const mha_setup *setup, const oracle_mha_result *expected) {
    attn_tensor output = *setup->output;
    if (output.rank == 3 && !setup->config.batch_first) {
        assert_ok(attn_tensor_transpose(&output, 0, 1, &output));
    }
    assert_close("output", &output, &expected->output);
    assert_close("weights", setup->weights, &expected->inner.weights);
}

static void mha_unbatched_equals_a_batch_of_one(void **state) {
    (void)state;
    for (int c = 0; c < NUM_CONFIGS; ++c) {
        mha_setup unbatched, batched;
        mha_setup_create(&unbatched, configs[c], 0, ROWS, KEYS, 61);
        mha_setup_create(&batched, configs[c], 1, ROWS, KEYS, 61);
        oracle_mha_result expected = mha_setup_expect(&batched);
        mha_setup_run(NULL, &unbatched);
        mha_setup_run(NULL, &batched);
        assert_mha_equals(&unbatched, &expected);
        assert_mha_equals(&batched, &expected);
        oracle_mha_result_destroy(&expected);
        mha_setup_destroy(&unbatched);
        mha_setup_destroy(&batched);
    }
}

/* The same memory, once as (N, L, E) to a batch-first layer and once as (L, N, E) to one that is
 * not. */
static void mha_sequence_first_equals_batch_first_transposed(void **state) {
    (void)state;
    for (int c = 0; c < NUM_CONFIGS; ++c) {
        attn_mha_config config = *configs[c];
        mha_setup sequence_first, batch_first;
        mha_setup_create(&sequence_first, &config, 3, ROWS, KEYS, 67);
        config.batch_first = 1;
        mha_setup_create(&batch_first, &config, 3, ROWS, KEYS, 67);
        oracle_mha_result expected = mha_setup_expect(&batch_first);
        attn_tensor *const targets[] = {sequence_first.query, sequence_first.key,
                                        sequence_first.value};
        const attn_tensor *const sources[] = {batch_first.query, batch_first.key,
                                              batch_first.value};
        for (int t = 0; t < 3; ++t) {
            assert_ok(attn_tensor_transpose(sources[t], 0, 1, targets[t]));
        }
        mha_setup_run(NULL, &sequence_first);
        mha_setup_run(NULL, &batch_first);
        assert_mha_equals(&sequence_first, &expected);
        assert_mha_equals(&batch_first, &expected);
        oracle_mha_result_destroy(&expected);
        mha_setup_destroy(&sequence_first);
        mha_setup_destroy(&batch_first);
    }
}

/* One batch of three calls, or three calls of one batch: padding included. */
static void mha_batches_do_not_affect_one_another(void **state) {
    (void)state;
    attn_mha_config config = rich_config;
    config.batch_first = 1;
    mha_setup all;
    mha_setup_create(&all, &config, 3, ROWS, KEYS, 71);
    attn_tensor *padding =
        pool_input(&all.pool, ATTN_DTYPE_BOOL, 2, (const int64_t[]){3, KEYS}, LAYOUT_CONTIGUOUS);
    random_fill_bool(padding, &all.random, 0.6);
    all.params.key_padding_mask = padding;
    all.params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    oracle_mha_result expected = mha_setup_expect(&all);
    for (int64_t n = 0; n < 3; ++n) {
        attn_tensor query, key, value, one_padding, output, weights;
        assert_ok(attn_tensor_slice(all.query, 0, n, 1, 1, &query));
        assert_ok(attn_tensor_slice(all.key, 0, n, 1, 1, &key));
        assert_ok(attn_tensor_slice(all.value, 0, n, 1, 1, &value));
        assert_ok(attn_tensor_slice(padding, 0, n, 1, 1, &one_padding));
        assert_ok(attn_tensor_slice(all.output, 0, n, 1, 1, &output));
        assert_ok(attn_tensor_slice(all.weights, 0, n, 1, 1, &weights));
        attn_mha_params params = all.params;
        params.key_padding_mask = &one_padding;
        attn_sdpa_params attention = all.attention;
        attention.weights = &weights;
        params.attention = &attention;
        assert_ok(
            attn_mha_forward(NULL, all.layer, &query, &key, &value, &params, &output, NULL, 0));
    }
    assert_mha_equals(&all, &expected);
    oracle_mha_result_destroy(&expected);
    mha_setup_destroy(&all);
}

/* key_padding_mask, a mask that repeats it for every row, and lengths: three ways to shorten
 * a batch. */
static void mha_padding_equals_a_mask_and_lengths(void **state) {
    (void)state;
    mha_setup setup;
    mha_setup_create(&setup, &rich_config, 2, ROWS, KEYS, 73);
    attn_tensor *padding =
        pool_input(&setup.pool, ATTN_DTYPE_BOOL, 2, (const int64_t[]){2, KEYS}, LAYOUT_CONTIGUOUS);
    attn_tensor *lengths =
        pool_input(&setup.pool, ATTN_DTYPE_INT64, 1, (const int64_t[]){2}, LAYOUT_CONTIGUOUS);
    for (int64_t n = 0; n < 2; ++n) {
        oracle_store_integer(lengths, &n, KEYS - 4 * (n + 1));
        for (int64_t j = 0; j < KEYS; ++j) {
            oracle_store(padding, (const int64_t[]){n, j}, j >= KEYS - 4 * (n + 1));
        }
    }
    setup.params.key_padding_mask = padding;
    setup.params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    oracle_mha_result expected = mha_setup_expect(&setup);
    mha_setup_run(NULL, &setup);
    assert_mha_equals(&setup, &expected);

    attn_tensor rows = {.data = padding->data,
                        .dtype = ATTN_DTYPE_BOOL,
                        .rank = 4,
                        .shape = {2, 1, ROWS, KEYS},
                        .strides = {KEYS, 0, 0, 1}};
    setup.params.key_padding_mask = NULL;
    setup.params.key_padding_mask_kind = ATTN_MASK_NONE;
    setup.attention.mask = &rows;
    setup.attention.mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    mha_setup_run(NULL, &setup);
    assert_mha_equals(&setup, &expected);

    setup.attention.mask = NULL;
    setup.attention.mask_kind = ATTN_MASK_NONE;
    setup.attention.key_lengths = lengths;
    mha_setup_run(NULL, &setup);
    assert_mha_equals(&setup, &expected);
    oracle_mha_result_destroy(&expected);
    mha_setup_destroy(&setup);
}

/* A (L, S) mask, repeated as (N * H, L, S), as (1, 1, L, S), and is_causal: the same rows and keys.
 */
static void mha_mask_shapes_and_causal_that_say_the_same_agree(void **state) {
    (void)state;
    mha_setup setup;
    mha_setup_create(&setup, &plain_config, 2, ROWS, KEYS, 79);
    attn_tensor *mask = pool_input(&setup.pool, ATTN_DTYPE_BOOL, 2, (const int64_t[]){ROWS, KEYS},
                                   LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < ROWS; ++i) {
        for (int64_t j = 0; j < KEYS; ++j) {
            oracle_store(mask, (const int64_t[]){i, j}, j > i);
        }
    }
    const int64_t heads = plain_config.num_heads;
    const attn_tensor stacked = {
        mask->data, ATTN_DTYPE_BOOL, 3, {2 * heads, ROWS, KEYS}, {0, KEYS, 1}};
    const attn_tensor four = {mask->data, ATTN_DTYPE_BOOL, 4, {1, 1, ROWS, KEYS}, {0, 0, KEYS, 1}};
    const attn_tensor *const masks[] = {mask, &stacked, &four, NULL};
    setup.attention.is_causal = 1;
    oracle_mha_result expected = mha_setup_expect(&setup);
    for (int m = 0; m < 4; ++m) {
        setup.attention.mask = masks[m];
        setup.attention.mask_kind = masks[m] != NULL ? ATTN_MASK_BOOL_EXCLUDE : ATTN_MASK_NONE;
        setup.attention.is_causal = masks[m] == NULL;
        mha_setup_run(NULL, &setup);
        assert_mha_equals(&setup, &expected);
    }
    oracle_mha_result_destroy(&expected);
    mha_setup_destroy(&setup);
}

/* Rows that see no key have weights 0 and the output bias, exactly. */
static void mha_row_without_keys_is_the_output_bias(void **state) {
    (void)state;
    mha_setup setup;
    mha_setup_create(&setup, &plain_config, 2, ROWS, KEYS, 83);
    attn_tensor *padding =
        pool_input(&setup.pool, ATTN_DTYPE_BOOL, 2, (const int64_t[]){2, KEYS}, LAYOUT_CONTIGUOUS);
    random_fill_bool(padding, &setup.random, 0);
    setup.params.key_padding_mask = padding;
    setup.params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    mha_setup_run(NULL, &setup);
    const attn_tensor *bias = &setup.parameters[setup.num_parameters - 1].values;
    attn_tensor repeated = *setup.output;
    repeated.data = bias->data;
    repeated.strides[0] = repeated.strides[1] = 0;
    assert_string_equal(setup.parameters[setup.num_parameters - 1].name, "out_proj.bias");
    assert_same_bits("output", setup.output, &repeated);
    attn_tensor *zero = pool_input(&setup.pool, ATTN_DTYPE_FLOAT32, 0, NULL, LAYOUT_CONTIGUOUS);
    oracle_store(zero, NULL, 0);
    attn_tensor zeros = *setup.weights;
    zeros.data = zero->data;
    for (int32_t axis = 0; axis < zeros.rank; ++axis) {
        zeros.strides[axis] = 0;
    }
    assert_same_bits("weights", setup.weights, &zeros);
    mha_setup_destroy(&setup);
}

/* Averaged weights are the mean of the per-head ones, also with a batch axis and extra columns. */
static void mha_averaged_weights_are_the_mean_over_heads(void **state) {
    (void)state;
    mha_setup setup;
    mha_setup_create(&setup, &rich_config, 2, ROWS, KEYS, 89);
    oracle_mha_result expected = mha_setup_expect(&setup);
    attn_tensor *mean = pool_output(&setup.pool, ATTN_DTYPE_FLOAT64, 3,
                                    (const int64_t[]){2, ROWS, KEYS + 2}, LAYOUT_CONTIGUOUS);
    setup.attention.weights = mean;
    mha_setup_run(NULL, &setup);
    assert_close("mean", mean, &expected.inner.average_weights);
    oracle_mha_result_destroy(&expected);
    mha_setup_destroy(&setup);
}

/* With head_dim = value_head_dim = embed_dim a layer of one head is PyTorch's layer of one head. */
static void mha_full_width_with_one_head_is_one_head_attention(void **state) {
    (void)state;
    attn_mha_config config = {.struct_size = sizeof config, .embed_dim = 10, .num_heads = 1};
    mha_setup plain, full_width;
    mha_setup_create(&plain, &config, 2, ROWS, KEYS, 97);
    config.head_dim = config.value_head_dim = config.embed_dim;
    mha_setup_create(&full_width, &config, 2, ROWS, KEYS, 97);
    mha_setup_run(NULL, &plain);
    mha_setup_run(NULL, &full_width);
    assert_same_bits("output", full_width.output, plain.output);
    assert_same_bits("weights", full_width.weights, plain.weights);
    mha_setup_destroy(&plain);
    mha_setup_destroy(&full_width);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mha_unbatched_equals_a_batch_of_one),
        cmocka_unit_test(mha_sequence_first_equals_batch_first_transposed),
        cmocka_unit_test(mha_batches_do_not_affect_one_another),
        cmocka_unit_test(mha_padding_equals_a_mask_and_lengths),
        cmocka_unit_test(mha_mask_shapes_and_causal_that_say_the_same_agree),
        cmocka_unit_test(mha_row_without_keys_is_the_output_bias),
        cmocka_unit_test(mha_averaged_weights_are_the_mean_over_heads),
        cmocka_unit_test(mha_full_width_with_one_head_is_one_head_attention),
    };
    return cmocka_run_group_tests_name("properties of multi-head attention", tests, NULL, NULL);
}
