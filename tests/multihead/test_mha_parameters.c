/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_parameters.c: copying parameters into a layer and out again, under every name it
 * accepts, in every layout and float type.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "layer_tools.h"

/* Rows of query, key and value: 18, 6 and 8. */
static const attn_mha_config packed = {.struct_size = sizeof packed,
                                       .embed_dim = 10,
                                       .num_heads = 6,
                                       .num_kv_heads = 2,
                                       .head_dim = 3,
                                       .value_head_dim = 4,
                                       .add_bias_kv = 1};

static const attn_mha_config separate = {
    .struct_size = sizeof separate, .embed_dim = 12, .num_heads = 3, .kdim = 5, .vdim = 7};

static const attn_mha_config without_bias = {
    .struct_size = sizeof without_bias, .embed_dim = 6, .num_heads = 2, .no_bias = 1};

/* ---- in and out ---- */

/* A third has a short mantissa in neither type, so a conversion rounds visibly. */
static double value_of(int64_t flat) {
    return (double)flat / 3 - 40;
}

static double converted(double value, int32_t from, int32_t to) {
    const bool narrows = from == ATTN_DTYPE_FLOAT32 || to == ATTN_DTYPE_FLOAT32;
    return narrows ? (double)(float)value : value;
}

static char caller_memory[LAYER_MOST_VALUES * 16 + 16];
static char read_memory[LAYER_MOST_VALUES * 16 + 16];
static char expected_memory[LAYER_MOST_VALUES * 16 + 16];

/* Reads a parameter into a layout of its own; every byte that is no element must stay. */
static void check_read(const attn_mha *layer, const char *name, const attn_tensor *shape,
                       enum value_layout layout, int32_t from) {
    const attn_tensor view = layer_view(shape, shape->dtype, layout, read_memory);
    attn_tensor expected = view;
    memset(read_memory, 0x77, sizeof read_memory);
    memset(expected_memory, 0x77, sizeof expected_memory);
    expected.data = expected_memory + ((char *)view.data - read_memory);
    for (int64_t i = 0; i < layer_count(shape); ++i) {
        layer_set(&expected, i, converted(value_of(i), from, shape->dtype));
    }
    assert_int_equal(attn_mha_read_parameter(NULL, layer, name, &view), ATTN_OK);
    for (int64_t i = 0; i < layer_count(shape); ++i) {
        if (layer_get(&view, i) != layer_get(&expected, i)) {
            fail_msg("%s, layout %d: value %lld: expected %.17g, got %.17g", name, layout,
                     (long long)i, layer_get(&expected, i), layer_get(&view, i));
        }
    }
    assert_memory_equal(read_memory, expected_memory, sizeof read_memory);
}

static void check_load(attn_mha *layer, const char *name, const attn_tensor *shape,
                       enum value_layout layout, int32_t from) {
    const attn_tensor view = layer_view(shape, from, layout, caller_memory);
    memset(caller_memory, 0xFF, sizeof caller_memory);
    for (int64_t i = 0; i < layer_count(shape); ++i) {
        layer_set(&view, i, value_of(i));
    }
    assert_int_equal(attn_mha_load_parameter(NULL, layer, name, &view, NULL), ATTN_OK);
    /* A copy: what becomes of the caller's memory does not matter. */
    memset(caller_memory, 0, sizeof caller_memory);
    for (enum value_layout out = VALUES_DENSE; out < VALUES_NUM_LAYOUTS; ++out) {
        check_read(layer, name, shape, out, from);
    }
}

static void check_all_parameters(const attn_mha_config *config, int32_t dtype) {
    counting_allocator counting;
    attn_mha_config typed = *config;
    typed.dtype = dtype;
    attn_mha *layer = layer_make(&counting, &typed);
    const char *name;
    attn_tensor shape;
    for (int64_t index = 0; attn_mha_parameter_describe(layer, index, &name, &shape) == ATTN_OK;
         ++index) {
        for (int choice = 0; choice < 2 * VALUES_NUM_LAYOUTS; ++choice) {
            const int32_t from = choice % 2 == 0 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64;
            check_load(layer, name, &shape, (enum value_layout)(choice / 2), from);
        }
    }
    layer_end(layer, &counting);
}

static void load_any_layout_and_type_is_read_back(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
        check_all_parameters(&packed, dtype);
        check_all_parameters(&separate, dtype);
        check_all_parameters(&without_bias, dtype);
    }
}

static void load_repeated_rows_are_repeated(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &separate);
    float row[5] = {1, 2, 3, 4, 5};
    const attn_tensor view = {
        .data = row, .dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {12, 5}, .strides = {0, 1}};
    assert_int_equal(attn_mha_load_parameter(NULL, layer, "k_proj_weight", &view, NULL), ATTN_OK);
    const parameter_values values = layer_read(layer, ATTN_DTYPE_FLOAT32, "k_proj_weight", 12, 5);
    for (int64_t i = 0; i < values.count; ++i) {
        assert_true(values.values[i] == (double)(i % 5 + 1));
    }
    layer_end(layer, &counting);
}

/* ---- several names for one parameter ---- */

static void separate_weights_are_parts_of_the_packed_one(void **state) {
    (void)state;
    enum { F32 = ATTN_DTYPE_FLOAT32 };
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &packed);
    layer_load_counting(layer, F32, "in_proj_weight", 32, 10, 0);
    parameter_values values = layer_read(layer, F32, "q_proj_weight", 18, 10);
    layer_assert_counting(&values, 0, 180, 0);
    values = layer_read(layer, F32, "k_proj_weight", 6, 10);
    layer_assert_counting(&values, 0, 60, 180);
    values = layer_read(layer, F32, "v_proj_weight", 8, 10);
    layer_assert_counting(&values, 0, 80, 240);
    layer_load_counting(layer, F32, "k_proj_weight", 6, 10, 5000);
    values = layer_read(layer, F32, "in_proj_weight", 32, 10);
    layer_assert_counting(&values, 0, 180, 0);
    layer_assert_counting(&values, 180, 240, 5000 - 180);
    layer_assert_counting(&values, 240, 320, 0);
    layer_end(layer, &counting);
}

static void check_separate_biases(const attn_mha_config *config, const int64_t rows[3]) {
    enum { F32 = ATTN_DTYPE_FLOAT32 };
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, config);
    const int64_t all = rows[0] + rows[1] + rows[2];
    layer_load_counting(layer, F32, "in_proj_bias", all, 0, 0);
    parameter_values values = layer_read(layer, F32, "q_proj_bias", rows[0], 0);
    layer_assert_counting(&values, 0, rows[0], 0);
    values = layer_read(layer, F32, "k_proj_bias", rows[1], 0);
    layer_assert_counting(&values, 0, rows[1], (double)rows[0]);
    values = layer_read(layer, F32, "v_proj_bias", rows[2], 0);
    layer_assert_counting(&values, 0, rows[2], (double)(rows[0] + rows[1]));
    layer_load_counting(layer, F32, "v_proj_bias", rows[2], 0, 700);
    values = layer_read(layer, F32, "in_proj_bias", all, 0);
    layer_assert_counting(&values, 0, rows[0] + rows[1], 0);
    layer_assert_counting(&values, rows[0] + rows[1], all, 700 - (double)(rows[0] + rows[1]));
    layer_end(layer, &counting);
}

static void separate_biases_are_parts_of_the_one_in_any_layer(void **state) {
    (void)state;
    check_separate_biases(&packed, (const int64_t[]){18, 6, 8});
    check_separate_biases(&separate, (const int64_t[]){12, 12, 12});
}

/* The whole is there when its parts are. */
static void packed_parameter_is_set_when_all_its_parts_are(void **state) {
    (void)state;
    enum { F32 = ATTN_DTYPE_FLOAT32 };
    static float memory[320];
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &packed);
    const attn_tensor shape = {.rank = 2, .shape = {32, 10}};
    const attn_tensor view = layer_view(&shape, F32, VALUES_DENSE, memory);
    layer_load_counting(layer, F32, "q_proj_weight", 18, 10, 0);
    layer_load_counting(layer, F32, "v_proj_weight", 8, 10, 240);
    memory[0] = -1;
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &view),
                     ATTN_ERROR_PARAMETER);
    assert_true(memory[0] == -1.0f);
    layer_load_counting(layer, F32, "k_proj_weight", 6, 10, 180);
    const parameter_values values = layer_read(layer, F32, "in_proj_weight", 32, 10);
    layer_assert_counting(&values, 0, 320, 0);
    layer_end(layer, &counting);
}

static void read_before_loading_is_refused(void **state) {
    (void)state;
    static float memory[100];
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &without_bias);
    const attn_tensor shape = {.rank = 2, .shape = {6, 6}};
    const attn_tensor view = layer_view(&shape, ATTN_DTYPE_FLOAT32, VALUES_DENSE, memory);
    memory[0] = -1;
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "out_proj.weight", &view),
                     ATTN_ERROR_PARAMETER);
    assert_string_equal(
        attn_last_error(),
        "out_proj.weight: expected a parameter that has been loaded or bound, got none");
    assert_true(memory[0] == -1.0f);
    layer_end(layer, &counting);
}

/* ---- what is refused ---- */

static void name_not_in_the_layer_is_refused(void **state) {
    (void)state;
    static float memory[400];
    static const char *const not_packed[] = {
        "", "in_proj", "In_proj_weight", "in_proj_weight ", "out_proj_weight", "q_proj.weight"};
    static const char *const not_separate[] = {"in_proj_weight", "bias_k", "bias_v"};
    static const char *const not_biased[] = {"in_proj_bias", "out_proj.bias", "q_proj_bias",
                                             "k_proj_bias",  "v_proj_bias",   "bias_k"};
    const struct {
        const attn_mha_config *config;
        const char *const *names;
        size_t count;
        const char *list;
    } layers[] = {
        {&packed, not_packed, 6,
         "in_proj_weight, in_proj_bias, bias_k, bias_v, out_proj.weight, out_proj.bias"},
        {&separate, not_separate, 3,
         "q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, out_proj.weight, "
         "out_proj.bias"},
        {&without_bias, not_biased, 6, "in_proj_weight, out_proj.weight"},
    };
    const attn_tensor view = {
        .data = memory, .dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {36}, .strides = {1}};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; ++i) {
        counting_allocator counting;
        attn_mha *layer = layer_make(&counting, layers[i].config);
        for (size_t j = 0; j < layers[i].count; ++j) {
            assert_int_equal(attn_mha_load_parameter(NULL, layer, layers[i].names[j], &view, NULL),
                             ATTN_ERROR_PARAMETER);
            assert_non_null(strstr(attn_last_error(), layers[i].list));
            assert_int_equal(attn_mha_bind_parameter(layer, layers[i].names[j], &view),
                             ATTN_ERROR_PARAMETER);
            assert_int_equal(attn_mha_read_parameter(NULL, layer, layers[i].names[j], &view),
                             ATTN_ERROR_PARAMETER);
        }
        layer_end(layer, &counting);
    }
}

/* What load and bind refuse leaves the parameter as it was. */
static void refused_values_leave_the_old_ones(void **state) {
    (void)state;
    static double memory[400];
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &without_bias);
    layer_load_counting(layer, ATTN_DTYPE_FLOAT32, "out_proj.weight", 6, 6, 7);
    const attn_tensor right = {
        .data = memory, .dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {6, 6}, .strides = {6, 1}};
    attn_tensor wrong[4] = {right, right, right, right};
    static const attn_status expected[] = {ATTN_ERROR_NULL, ATTN_ERROR_SHAPE, ATTN_ERROR_DTYPE,
                                           ATTN_ERROR_SHAPE};
    wrong[0].data = NULL;
    wrong[1].shape[0] = 5;
    wrong[2].dtype = ATTN_DTYPE_INT64;
    wrong[3].rank = 3;
    wrong[3].shape[2] = 1;
    for (int i = 0; i < 4; ++i) {
        assert_int_equal(attn_mha_load_parameter(NULL, layer, "out_proj.weight", &wrong[i], NULL),
                         expected[i]);
        assert_int_equal(attn_mha_bind_parameter(layer, "out_proj.weight", &wrong[i]), expected[i]);
        assert_int_equal(attn_mha_read_parameter(NULL, layer, "out_proj.weight", &wrong[i]),
                         expected[i]);
    }
    attn_tensor other_type = right;
    other_type.dtype = ATTN_DTYPE_FLOAT64;
    assert_int_equal(attn_mha_bind_parameter(layer, "out_proj.weight", &other_type),
                     ATTN_ERROR_DTYPE);
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "out_proj.weight", &other_type),
                     ATTN_ERROR_DTYPE);
    assert_int_equal(attn_mha_load_parameter(NULL, layer, NULL, &right, NULL), ATTN_ERROR_NULL);
    assert_int_equal(attn_mha_load_parameter(NULL, layer, "out_proj.weight", NULL, NULL),
                     ATTN_ERROR_NULL);
    assert_int_equal(attn_mha_load_parameter(NULL, NULL, "out_proj.weight", &right, NULL),
                     ATTN_ERROR_NULL);
    const parameter_values values = layer_read(layer, ATTN_DTYPE_FLOAT32, "out_proj.weight", 6, 6);
    layer_assert_counting(&values, 0, 36, 7);
    layer_end(layer, &counting);
}

/* in_proj_weight takes three blocks; whichever is refused, the layer is as before and nothing is
 * lost. */
static void load_without_memory_leaves_the_old_values(void **state) {
    (void)state;
    static float memory[400];
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &packed);
    const attn_tensor view = {.data = memory,
                              .dtype = ATTN_DTYPE_FLOAT32,
                              .rank = 2,
                              .shape = {32, 10},
                              .strides = {10, 1}};
    layer_load_counting(layer, ATTN_DTYPE_FLOAT32, "in_proj_weight", 32, 10, 3);
    const int64_t num_live = counting.live_blocks;
    int64_t num_refused = 0;
    attn_status status = ATTN_ERROR_MEMORY;
    while (status != ATTN_OK) {
        counting_allocator_fail(&counting, num_refused + 1, false);
        status = attn_mha_load_parameter(NULL, layer, "in_proj_weight", &view, NULL);
        assert_int_equal(counting.live_blocks, num_live);
        if (status != ATTN_OK) {
            assert_int_equal(status, ATTN_ERROR_MEMORY);
            const parameter_values values =
                layer_read(layer, ATTN_DTYPE_FLOAT32, "in_proj_weight", 32, 10);
            layer_assert_counting(&values, 0, 320, 3);
            ++num_refused;
        }
    }
    assert_true(num_refused >= 1);
    layer_end(layer, &counting);
}

static void read_into_overlapping_elements_is_refused(void **state) {
    (void)state;
    static float memory[36];
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &without_bias);
    layer_load_counting(layer, ATTN_DTYPE_FLOAT32, "out_proj.weight", 6, 6, 0);
    const attn_tensor view = {
        .data = memory, .dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {6, 6}, .strides = {0, 1}};
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "out_proj.weight", &view),
                     ATTN_ERROR_OVERLAP);
    for (int i = 0; i < 36; ++i) {
        assert_true(memory[i] == 0.0f);
    }
    layer_end(layer, &counting);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_any_layout_and_type_is_read_back),
        cmocka_unit_test(load_repeated_rows_are_repeated),
        cmocka_unit_test(separate_weights_are_parts_of_the_packed_one),
        cmocka_unit_test(separate_biases_are_parts_of_the_one_in_any_layer),
        cmocka_unit_test(packed_parameter_is_set_when_all_its_parts_are),
        cmocka_unit_test(read_before_loading_is_refused),
        cmocka_unit_test(name_not_in_the_layer_is_refused),
        cmocka_unit_test(refused_values_leave_the_old_ones),
        cmocka_unit_test(load_without_memory_leaves_the_old_values),
        cmocka_unit_test(read_into_overlapping_elements_is_refused),
    };
    return cmocka_run_group_tests_name("mha_parameters", tests, NULL, NULL);
}
