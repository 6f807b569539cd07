/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_int8.c: weights that are kept as int8: as whose numbers they are read, what may be loaded
 * beside them, and that a product with integers is that of the same numbers as float32.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layer_tools.h"

static const attn_mha_config packed = {.struct_size = sizeof packed,
                                       .embed_dim = 10,
                                       .num_heads = 2,
                                       .parameter_dtype = ATTN_DTYPE_INT8,
                                       .add_bias_kv = 1};

static const attn_mha_config separate = {.struct_size = sizeof separate,
                                         .embed_dim = 12,
                                         .num_heads = 3,
                                         .kdim = 5,
                                         .vdim = 7,
                                         .dtype = ATTN_DTYPE_BFLOAT16,
                                         .parameter_dtype = ATTN_DTYPE_INT8,
                                         .qk_norm = ATTN_QK_NORM_HEAD};

static attn_tensor dense(void *data, int32_t dtype, int64_t rows, int64_t cols) {
    return (attn_tensor){.data = data,
                         .dtype = dtype,
                         .rank = cols > 0 ? 2 : 1,
                         .shape = {rows, cols},
                         .strides = {cols > 0 ? cols : 1, 1}};
}

static void fill_integers(int8_t *integers, float *scales, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows * cols; ++i) {
        integers[i] = (int8_t)(i * 37 % 256 - 128);
    }
    for (int64_t row = 0; row < rows; ++row) {
        scales[row] = 0.25F / (float)(row + 3);
    }
}

static void load_integers(attn_mha *layer, const char *name, const attn_tensor *values,
                          const attn_tensor *scale) {
    const attn_mha_load_params params = {.struct_size = sizeof params, .scale = scale};
    assert_int_equal(attn_mha_load_parameter(NULL, layer, name, values, &params), ATTN_OK);
}

/* ---- what is read ---- */

static void integers_and_scales_are_read_as_they_were_loaded(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &packed);
    int8_t integers[30 * 10], read[30 * 10];
    float scales[30], read_scales[30], numbers[30 * 10];
    fill_integers(integers, scales, 30, 10);
    const attn_tensor values = dense(integers, ATTN_DTYPE_INT8, 30, 10);
    const attn_tensor scale = dense(scales, ATTN_DTYPE_FLOAT32, 30, 1);
    load_integers(layer, "in_proj_weight", &values, &scale);
    attn_tensor view = dense(read, ATTN_DTYPE_INT8, 30, 10);
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &view), ATTN_OK);
    assert_memory_equal(read, integers, sizeof read);
    view = dense(read_scales, ATTN_DTYPE_FLOAT32, 30, 0);
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight.scale", &view), ATTN_OK);
    assert_memory_equal(read_scales, scales, sizeof scales);
    view = dense(numbers, ATTN_DTYPE_FLOAT32, 30, 10);
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &view), ATTN_OK);
    for (int i = 0; i < 300; ++i) {
        assert_true(numbers[i] == (float)integers[i] * scales[i / 10]);
    }
    view = dense(read_scales, ATTN_DTYPE_FLOAT32, 10, 0);
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "v_proj_weight.scale", &view), ATTN_OK);
    assert_memory_equal(read_scales, scales + 20, 10 * sizeof *scales);
    layer_end(layer, &counting);
}

/* Numbers that are multiples of their row's scale are kept exactly. */
static void numbers_are_read_as_nearest_multiples_of_the_scale(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &separate);
    float numbers[12 * 5], read[12 * 5];
    for (int i = 0; i < 60; ++i) {
        numbers[i] = i % 5 == 4 ? 127.0F / 16 : (float)(i % 7) / 32; /* halves of a step too */
    }
    const attn_tensor values = dense(numbers, ATTN_DTYPE_FLOAT32, 12, 5);
    const attn_tensor view = dense(read, ATTN_DTYPE_FLOAT32, 12, 5);
    assert_int_equal(attn_mha_load_parameter(NULL, layer, "k_proj_weight", &values, NULL), ATTN_OK);
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "k_proj_weight", &view), ATTN_OK);
    for (int i = 0; i < 60; ++i) {
        assert_true(read[i] == nearbyintf(numbers[i] * 16) / 16);
    }
    layer_end(layer, &counting);
}

static void weights_are_described_as_float32_and_so_is_the_rest(void **state) {
    (void)state;
    const attn_mha_config *configs[] = {&packed, &separate};
    for (int i = 0; i < 2; ++i) {
        counting_allocator counting;
        attn_mha *layer = layer_make(&counting, configs[i]);
        const char *name;
        attn_tensor shape;
        for (int64_t index = 0; attn_mha_parameter_describe(layer, index, &name, &shape) == ATTN_OK;
             ++index) {
            assert_int_equal(shape.dtype, ATTN_DTYPE_FLOAT32);
            assert_null(strstr(name, ".scale"));
        }
        layer_end(layer, &counting);
    }
}

/* Any of the three allocations of a packed weight may fail. */
static void load_without_memory_keeps_what_was_loaded(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &packed);
    int8_t integers[30 * 10], read[30 * 10];
    float scales[30], numbers[30 * 10] = {0};
    fill_integers(integers, scales, 30, 10);
    const attn_tensor values = dense(integers, ATTN_DTYPE_INT8, 30, 10);
    const attn_tensor scale = dense(scales, ATTN_DTYPE_FLOAT32, 30, 0);
    const attn_tensor others = dense(numbers, ATTN_DTYPE_FLOAT32, 30, 10);
    const attn_tensor view = dense(read, ATTN_DTYPE_INT8, 30, 10);
    load_integers(layer, "in_proj_weight", &values, &scale);
    const int live = counting.live_blocks;
    for (int64_t n = 1; n <= 3; ++n) {
        counting_allocator_fail(&counting, n, false);
        assert_int_equal(attn_mha_load_parameter(NULL, layer, "in_proj_weight", &others, NULL),
                         ATTN_ERROR_MEMORY);
        assert_int_equal(counting.live_blocks, live);
        assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &view), ATTN_OK);
        assert_memory_equal(read, integers, sizeof read);
    }
    layer_end(layer, &counting);
}

/* ---- fresh values ---- */

static void fresh_weights_are_those_of_a_float32_layer_quantized(void **state) {
    (void)state;
    counting_allocator counting, of_wide, of_loaded;
    attn_mha_config wide_config = packed;
    wide_config.parameter_dtype = ATTN_DTYPE_FLOAT32;
    attn_mha *layer = layer_make(&counting, &packed), *wide = layer_make(&of_wide, &wide_config),
             *loaded = layer_make(&of_loaded, &packed);
    assert_int_equal(attn_mha_init_parameters(NULL, layer, NULL), ATTN_OK);
    assert_int_equal(attn_mha_init_parameters(NULL, wide, NULL), ATTN_OK);
    const char *name;
    attn_tensor view;
    for (int64_t index = 0; attn_mha_parameter_describe(layer, index, &name, &view) == ATTN_OK;
         ++index) {
        float numbers[300], kept[300], expected[300];
        view.data = numbers;
        assert_int_equal(attn_mha_read_parameter(NULL, wide, name, &view), ATTN_OK);
        assert_int_equal(attn_mha_load_parameter(NULL, loaded, name, &view, NULL), ATTN_OK);
        view.data = expected;
        assert_int_equal(attn_mha_read_parameter(NULL, loaded, name, &view), ATTN_OK);
        view.data = kept;
        assert_int_equal(attn_mha_read_parameter(NULL, layer, name, &view), ATTN_OK);
        assert_memory_equal(kept, expected, (size_t)layer_count(&view) * sizeof *kept);
    }
    layer_end(layer, &counting);
    layer_end(wide, &of_wide);
    layer_end(loaded, &of_loaded);
}

/* ---- products ---- */

enum { EMBED = 40, INPUTS = 300, MOST_ROWS = 230 };

static const attn_mha_config long_sums = {.struct_size = sizeof long_sums,
                                          .embed_dim = EMBED,
                                          .num_heads = 2,
                                          .qdim = INPUTS,
                                          .kdim = INPUTS,
                                          .vdim = INPUTS,
                                          .no_bias = 1,
                                          .batch_first = 1};

/* A layer of the same integers, with scales of 1, as int8 or as float32. */
static attn_mha *layer_of_integers(counting_allocator *counting, int32_t dtype) {
    static const char *const names[] = {"q_proj_weight", "k_proj_weight", "v_proj_weight",
                                        "out_proj.weight"};
    static int8_t integers[EMBED * INPUTS];
    static float numbers[EMBED * INPUTS], scales[EMBED];
    attn_mha_config config = long_sums;
    config.parameter_dtype = dtype;
    attn_mha *layer = layer_make(counting, &config);
    for (int i = 0; i < EMBED * INPUTS; ++i) {
        integers[i] = (int8_t)(i * 37 % 255 - 127);
        numbers[i] = integers[i];
        scales[i % EMBED] = 1;
    }
    for (int i = 0; i < 4; ++i) {
        const int64_t cols = i < 3 ? INPUTS : EMBED;
        const attn_tensor wide = dense(numbers, ATTN_DTYPE_FLOAT32, EMBED, cols);
        const attn_tensor values = dense(integers, ATTN_DTYPE_INT8, EMBED, cols);
        const attn_tensor scale = dense(scales, ATTN_DTYPE_FLOAT32, EMBED, 0);
        if (dtype == ATTN_DTYPE_INT8) {
            load_integers(layer, names[i], &values, &scale);
        } else {
            assert_int_equal(attn_mha_load_parameter(NULL, layer, names[i], &wide, NULL), ATTN_OK);
        }
    }
    return layer;
}

static attn_tensor rows_of(float *data, int64_t rows, int64_t features) {
    return (attn_tensor){.data = data,
                         .dtype = ATTN_DTYPE_FLOAT32,
                         .rank = 2,
                         .shape = {rows, features},
                         .strides = {features, 1}};
}

/* Whatever the kernels and however many rows share a tile, or are too many to be one. */
static void sums_of_integers_have_the_bits_of_sums_of_floats(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 2, 3, 7, 13, 97, MOST_ROWS};
    static float input[MOST_ROWS * INPUTS], wide[MOST_ROWS * EMBED], narrow[MOST_ROWS * EMBED];
    counting_allocator of_wide, of_narrow;
    attn_mha *wide_layer = layer_of_integers(&of_wide, ATTN_DTYPE_FLOAT32);
    attn_mha *narrow_layer = layer_of_integers(&of_narrow, ATTN_DTYPE_INT8);
    for (int i = 0; i < MOST_ROWS * INPUTS; ++i) {
        input[i] = (float)(i * 31 % 113 - 56) / 40000;
    }
    for (int32_t set = 0; attn_kernels_name(set) != NULL; ++set) {
        const attn_context_config config = {.struct_size = sizeof config,
                                            .kernels = attn_kernels_name(set)};
        attn_context *context;
        assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
            const attn_tensor x = rows_of(input, lengths[i], INPUTS);
            const attn_tensor y = rows_of(wide, lengths[i], EMBED);
            const attn_tensor z = rows_of(narrow, lengths[i], EMBED);
            assert_int_equal(attn_mha_forward(context, wide_layer, &x, &x, &x, NULL, &y, NULL, 0),
                             ATTN_OK);
            assert_int_equal(attn_mha_forward(context, narrow_layer, &x, &x, &x, NULL, &z, NULL, 0),
                             ATTN_OK);
            assert_memory_equal(narrow, wide, (size_t)(lengths[i] * EMBED) * sizeof *wide);
        }
        attn_context_destroy(context);
    }
    layer_end(wide_layer, &of_wide);
    layer_end(narrow_layer, &of_narrow);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_and_scales_are_read_as_they_were_loaded),
        cmocka_unit_test(numbers_are_read_as_nearest_multiples_of_the_scale),
        cmocka_unit_test(weights_are_described_as_float32_and_so_is_the_rest),
        cmocka_unit_test(load_without_memory_keeps_what_was_loaded),
        cmocka_unit_test(fresh_weights_are_those_of_a_float32_layer_quantized),
        cmocka_unit_test(sums_of_integers_have_the_bits_of_sums_of_floats),
    };
    return cmocka_run_group_tests_name("int8 weights", tests, NULL, NULL);
}
