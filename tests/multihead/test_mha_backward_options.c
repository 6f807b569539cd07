/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_backward_options.c: a layer whose projections change nothing gives each option of the
 * attention inside, wanted alone, the gradient that attn_sdpa_backward has for it, bit for bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

enum {
    N = 2,
    H = 3,
    L = 37,
    D = 8,
    E = H * D,
    ROWS = N * L * E,
    REACH = 5,
    DISTANCES = 2 * REACH + 1,
    MOST_NUMBERS = L * L,
    SAVED_BYTES = 1 << 18
};

/* An option of attention, and the gradient of it. */
enum option { MASK, BIAS, POSITION_BIAS, SLOPES, SINKS, NUM_OPTIONS };

static float query[ROWS], key[ROWS], value[ROWS], given[ROWS], output[ROWS], lse[N * H * L];
static float options[NUM_OPTIONS][MOST_NUMBERS];
static _Alignas(64) unsigned char saved[SAVED_BYTES];

static void fill(float *data, int64_t count, uint64_t seed) {
    for (int64_t i = 0; i < count; ++i) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        data[i] = (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
}

static attn_tensor view_of(float *data, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, rank, shape), ATTN_OK);
    return view;
}

/* (N, L, E), as a layer has rows. */
static attn_tensor rows_of(float *data) {
    return view_of(data, 3, (const int64_t[]){N, L, E});
}

/* The same as (N, H, L, D). */
static attn_tensor heads_of(float *data) {
    attn_tensor view = view_of(data, 4, (const int64_t[]){N, H, L, D});
    const int64_t strides[] = {L * E, D, E, 1};
    memcpy(view.strides, strides, sizeof strides);
    return view;
}

static attn_tensor option_view(enum option which, float *data) {
    switch (which) {
    case POSITION_BIAS:
        return view_of(data, 2, (const int64_t[]){H, DISTANCES});
    case SLOPES:
    case SINKS:
        return view_of(data, 1, (const int64_t[]){H});
    default:
        return view_of(data, 2, (const int64_t[]){L, L});
    }
}

static attn_mha *new_layer(void) {
    static float weights[3 * E * E];
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = E,
                                    .num_heads = H,
                                    .batch_first = 1,
                                    .no_bias = 1};
    attn_mha *layer;
    assert_int_equal(attn_mha_create(NULL, &config, &layer), ATTN_OK);
    for (int64_t i = 0; i < 3 * E; ++i) {
        weights[i * E + i % E] = 1;
    }
    const attn_tensor packed = view_of(weights, 2, (const int64_t[]){3 * E, E});
    const attn_tensor one = view_of(weights, 2, (const int64_t[]){E, E});
    assert_int_equal(attn_mha_load_parameter(NULL, layer, "in_proj_weight", &packed, NULL),
                     ATTN_OK);
    assert_int_equal(attn_mha_load_parameter(NULL, layer, "out_proj.weight", &one, NULL), ATTN_OK);
    return layer;
}

static attn_sdpa_params params_of(const attn_tensor views[NUM_OPTIONS]) {
    return (attn_sdpa_params){.struct_size = sizeof(attn_sdpa_params),
                              .is_causal = 1,
                              .mask = &views[MASK],
                              .mask_kind = ATTN_MASK_ADDITIVE,
                              .bias = &views[BIAS],
                              .position_bias = &views[POSITION_BIAS],
                              .alibi_slopes = &views[SLOPES],
                              .sinks = &views[SINKS]};
}

static attn_sdpa_gradients wanted_of(enum option which, const attn_tensor *place) {
    attn_sdpa_gradients gradients = {.struct_size = sizeof gradients};
    const attn_tensor **const fields[] = {&gradients.mask, &gradients.bias,
                                          &gradients.position_bias, &gradients.alibi_slopes,
                                          &gradients.sinks};
    *fields[which] = place;
    return gradients;
}

static void through_the_layer(const attn_mha *layer, const attn_tensor views[NUM_OPTIONS],
                              enum option which, float *found) {
    const attn_sdpa_params attention = params_of(views);
    const attn_tensor q = rows_of(query), k = rows_of(key), v = rows_of(value);
    const attn_tensor y = rows_of(output), dy = rows_of(given);
    const attn_mha_params params = {.struct_size = sizeof params,
                                    .attention = &attention,
                                    .saved = saved,
                                    .saved_bytes = sizeof saved};
    assert_int_equal(attn_mha_forward(NULL, layer, &q, &k, &v, &params, &y, NULL, 0), ATTN_OK);
    const attn_tensor place = option_view(which, found);
    const attn_sdpa_gradients inner = wanted_of(which, &place);
    const attn_mha_gradients gradients = {
        .struct_size = sizeof gradients, .output = &dy, .attention = &inner};
    assert_int_equal(attn_mha_backward(NULL, layer, &q, &k, &v, &params, &gradients, NULL, 0),
                     ATTN_OK);
}

static void without_a_layer(const attn_tensor views[NUM_OPTIONS], enum option which,
                            float *expected) {
    attn_sdpa_params params = params_of(views);
    const attn_tensor rows = view_of(lse, 3, (const int64_t[]){N, H, L});
    params.lse = &rows;
    const attn_tensor q = heads_of(query), k = heads_of(key), v = heads_of(value);
    const attn_tensor y = heads_of(output), dy = heads_of(given);
    assert_int_equal(attn_sdpa(NULL, &q, &k, &v, &params, &y, NULL, 0), ATTN_OK);
    const attn_tensor place = option_view(which, expected);
    attn_sdpa_gradients gradients = wanted_of(which, &place);
    gradients.output = &dy;
    assert_int_equal(attn_sdpa_backward(NULL, &q, &k, &v, &params, &y, &gradients, NULL, 0),
                     ATTN_OK);
}

static void options_have_the_gradients_of_the_attention_inside(void **state) {
    (void)state;
    float *const inputs[] = {query, key, value, given};
    attn_tensor views[NUM_OPTIONS];
    for (int i = 0; i < 4; ++i) {
        fill(inputs[i], ROWS, (uint64_t)i);
    }
    for (int which = 0; which < NUM_OPTIONS; ++which) {
        fill(options[which], MOST_NUMBERS, (uint64_t)(10 + which));
        views[which] = option_view((enum option)which, options[which]);
    }
    attn_mha *layer = new_layer();
    for (int which = 0; which < NUM_OPTIONS; ++which) {
        static float found[MOST_NUMBERS], expected[MOST_NUMBERS];
        memset(found, 0, sizeof found);
        memset(expected, 0, sizeof expected);
        through_the_layer(layer, views, (enum option)which, found);
        without_a_layer(views, (enum option)which, expected);
        assert_true(expected[0] != 0);
        assert_memory_equal(found, expected, sizeof found);
    }
    attn_mha_destroy(layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_have_the_gradients_of_the_attention_inside),
    };
    return cmocka_run_group_tests_name("gradients of a layer's options", tests, NULL, NULL);
}
