/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_split_keys.c: layers whose fused attention splits many keys, the last split of which
 * takes the extra columns too; against the BLAS engine, which knows no splits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { KEYS = 2 * 2048 + 100, MOST_ROWS = 13, EMBED = 6, HEADS = 2 };

static float keys[KEYS * EMBED];
static float queries[MOST_ROWS * EMBED];
static float masks[MOST_ROWS * KEYS];

static attn_mha *layer_with(int32_t add_bias_kv, int32_t add_zero_attn) {
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = EMBED,
                                    .num_heads = HEADS,
                                    .add_bias_kv = add_bias_kv,
                                    .add_zero_attn = add_zero_attn};
    attn_mha *layer;
    assert_int_equal(attn_mha_create(NULL, &config, &layer), ATTN_OK);
    const attn_mha_init_params init = {.struct_size = sizeof init, .seed = 5};
    assert_int_equal(attn_mha_init_parameters(NULL, layer, &init), ATTN_OK);
    return layer;
}

static attn_tensor matrix(float *data, int64_t rows, int64_t cols) {
    const int64_t shape[] = {rows, cols};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    return view;
}

static void forward(const attn_mha *layer, int32_t engine, int64_t rows, float *output) {
    const attn_context_config settings = {
        .struct_size = sizeof settings, .num_threads = 2, .engine = engine};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    const attn_tensor query = matrix(queries, rows, EMBED), key = matrix(keys, KEYS, EMBED);
    const attn_tensor to = matrix(output, rows, EMBED), mask = matrix(masks, rows, KEYS);
    const attn_sdpa_params attention = {
        .struct_size = sizeof attention, .mask_kind = ATTN_MASK_ADDITIVE, .mask = &mask};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    assert_int_equal(attn_mha_forward(context, layer, &query, &key, &key, &params, &to, NULL, 0),
                     ATTN_OK);
    attn_context_destroy(context);
}

/* A few rows go by rows, more of them in lanes. The mask makes an extra column weigh about as much as
 * all keys together: 8 is close to the logarithm of their number. */
static void extra_columns_are_seen_once_beside_splits(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 3, MOST_ROWS};
    for (int i = 0; i < KEYS * EMBED; ++i) {
        keys[i] = (float)(i % 11) / 8;
    }
    for (int i = 0; i < MOST_ROWS * EMBED; ++i) {
        queries[i] = (float)(i % 5 - 2) / 4;
    }
    for (int i = 0; i < MOST_ROWS * KEYS; ++i) {
        masks[i] = -8;
    }
    for (int options = 0; options < 4; ++options) {
        attn_mha *layer = layer_with(options & 1, options >> 1);
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
            float expected[MOST_ROWS * EMBED], got[MOST_ROWS * EMBED];
            forward(layer, ATTN_ENGINE_BLAS, lengths[i], expected);
            forward(layer, ATTN_ENGINE_FUSED, lengths[i], got);
            for (int64_t j = 0; j < lengths[i] * EMBED; ++j) {
                assert_true(fabsf(got[j] - expected[j]) <= 1e-5F);
            }
        }
        attn_mha_destroy(layer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extra_columns_are_seen_once_beside_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
