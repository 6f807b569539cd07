/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_backward_bits.c: the gradients of a layer have the same bits on any number of threads, and
 * hidden rows of NaN have gradients of exactly 0 and are in no other.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

enum {
    N = 3,
    L = 70,
    E = 48,
    H = 4,
    KV_HEADS = 2,
    PADDED = 9, /* last keys of each sequence */
    ROWS = N * L * E,
    MOST_PARAMETERS = 10,
    MOST_VALUES = 2 * E * E,
    SAVED_BYTES = 1 << 20
};

typedef struct results {
    float inputs[3][ROWS];
    float parameters[MOST_PARAMETERS][MOST_VALUES];
} results;

static float query[ROWS], key[ROWS], value[ROWS], output[ROWS], given[ROWS];
static _Alignas(64) unsigned char saved[SAVED_BYTES];
static unsigned char padding[N * L];

static void fill(float *data, int64_t count, uint64_t seed) {
    for (int64_t i = 0; i < count; ++i) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        data[i] = (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
}

static void fill_inputs(void) {
    fill(query, ROWS, 1);
    fill(key, ROWS, 2);
    fill(value, ROWS, 3);
    fill(given, ROWS, 4);
    for (int64_t i = 0; i < (int64_t)N * L; ++i) {
        padding[i] = i % L >= L - PADDED;
    }
}

static attn_tensor rows_view(float *data) {
    attn_tensor view;
    const int64_t shape[] = {N, L, E};
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 3, shape), ATTN_OK);
    return view;
}

static attn_mha *make_layer(void) {
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = E,
                                    .num_heads = H,
                                    .num_kv_heads = KV_HEADS,
                                    .add_bias_kv = 1,
                                    .add_zero_attn = 1,
                                    .batch_first = 1,
                                    .qk_norm = ATTN_QK_NORM_HEAD};
    attn_mha *layer = NULL;
    assert_int_equal(attn_mha_create(NULL, &config, &layer), ATTN_OK);
    assert_int_equal(attn_mha_init_parameters(NULL, layer, NULL), ATTN_OK);
    return layer;
}

static void run(const attn_mha *layer, int32_t num_threads, results *to) {
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = num_threads};
    attn_context *context = NULL;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    const attn_tensor views[] = {rows_view(query), rows_view(key), rows_view(value),
                                 rows_view(output), rows_view(given)};
    const attn_tensor of_inputs[] = {rows_view(to->inputs[0]), rows_view(to->inputs[1]),
                                     rows_view(to->inputs[2])};
    const int64_t padding_shape[] = {N, L};
    attn_tensor hidden, parameters[MOST_PARAMETERS];
    assert_int_equal(attn_tensor_init(&hidden, padding, ATTN_DTYPE_BOOL, 2, padding_shape),
                     ATTN_OK);
    int64_t count = 0;
    assert_int_equal(attn_mha_parameter_count(layer, &count), ATTN_OK);
    assert_in_range(count, 1, MOST_PARAMETERS);
    for (int64_t i = 0; i < count; ++i) {
        assert_int_equal(attn_mha_parameter_describe(layer, i, NULL, &parameters[i]), ATTN_OK);
        parameters[i].data = to->parameters[i];
    }
    const attn_rope_params rope = {.struct_size = sizeof rope};
    const attn_dropout dropout = {.struct_size = sizeof dropout, .probability = 0.25, .seed = 7};
    const attn_sdpa_params attention = {
        .struct_size = sizeof attention, .is_causal = 1, .dropout = &dropout};
    attn_mha_params params = {.struct_size = sizeof params,
                              .key_padding_mask = &hidden,
                              .key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE,
                              .attention = &attention,
                              .rope = &rope,
                              .saved = saved,
                              .saved_bytes = sizeof saved};
    const attn_mha_gradients gradients = {.struct_size = sizeof gradients,
                                          .output = &views[4],
                                          .query = &of_inputs[0],
                                          .key = &of_inputs[1],
                                          .value = &of_inputs[2],
                                          .parameters = parameters,
                                          .num_parameters = count};
    assert_int_equal(attn_mha_forward(context, layer, &views[0], &views[1], &views[2], &params,
                                      &views[3], NULL, 0),
                     ATTN_OK);
    assert_int_equal(attn_mha_backward(context, layer, &views[0], &views[1], &views[2], &params,
                                       &gradients, NULL, 0),
                     ATTN_OK);
    attn_context_destroy(context);
}

static results expected, found;

static void gradients_are_the_same_bits_on_any_threads(void **state) {
    (void)state;
    attn_mha *layer = make_layer();
    fill_inputs();
    memset(&expected, 0, sizeof expected);
    run(layer, 1, &expected);
    const int32_t threads[] = {1, 2, 3, 7};
    for (int i = 0; i < 4; ++i) {
        memset(&found, 0, sizeof found);
        run(layer, threads[i], &found);
        assert_memory_equal(&expected, &found, sizeof expected);
    }
    attn_mha_destroy(layer);
}

static void padded_rows_of_nan_are_in_no_gradient(void **state) {
    (void)state;
    attn_mha *layer = make_layer();
    fill_inputs();
    memset(&expected, 0, sizeof expected);
    memset(&found, 0, sizeof found);
    run(layer, 2, &expected);
    for (int64_t i = 0; i < ROWS; ++i) {
        if (padding[i / E] != 0) {
            key[i] = NAN;
            value[i] = INFINITY;
            assert_true(expected.inputs[1][i] == 0 && expected.inputs[2][i] == 0);
        }
    }
    run(layer, 2, &found);
    assert_memory_equal(&expected, &found, sizeof expected);
    attn_mha_destroy(layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_the_same_bits_on_any_threads),
        cmocka_unit_test(padded_rows_of_nan_are_in_no_gradient),
    };
    return cmocka_run_group_tests_name("mha backward bits", tests, NULL, NULL);
}
