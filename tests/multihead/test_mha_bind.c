/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_bind.c: parameters that stay the caller's: seen anew at every use, never written, never
 * freed, replaced at will.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "layer_tools.h"

enum { F32 = ATTN_DTYPE_FLOAT32 };

static const attn_mha_config config = {
    .struct_size = sizeof config, .embed_dim = 6, .num_heads = 2, .add_bias_kv = 1};

static float memory[1024];

static attn_tensor counting_view(int64_t rows, int64_t cols, enum value_layout layout,
                                 double first) {
    const attn_tensor shape = {.rank = cols > 0 ? 2 : 1, .shape = {rows, cols}};
    const attn_tensor view = layer_view(&shape, F32, layout, memory);
    for (int64_t i = 0; i < layer_count(&view); ++i) {
        layer_set(&view, i, first + (double)i);
    }
    return view;
}

static void bind_any_layout_sees_later_changes(void **state) {
    (void)state;
    for (enum value_layout layout = VALUES_DENSE; layout < VALUES_NUM_LAYOUTS; ++layout) {
        counting_allocator counting;
        attn_mha *layer = layer_make(&counting, &config);
        const int64_t num_calls = counting.requests;
        const attn_tensor view = counting_view(18, 6, layout, 0);
        assert_int_equal(attn_mha_bind_parameter(layer, "in_proj_weight", &view), ATTN_OK);
        assert_int_equal(counting.requests, num_calls);
        parameter_values values = layer_read(layer, F32, "in_proj_weight", 18, 6);
        layer_assert_counting(&values, 0, 108, 0);
        counting_view(18, 6, layout, 500);
        values = layer_read(layer, F32, "in_proj_weight", 18, 6);
        layer_assert_counting(&values, 0, 108, 500);
        values = layer_read(layer, F32, "v_proj_weight", 6, 6);
        layer_assert_counting(&values, 0, 36, 500 + 72);
        layer_end(layer, &counting);
    }
}

static void bind_extra_key_sees_later_changes(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &config);
    const attn_tensor view = {
        .data = memory, .dtype = F32, .rank = 3, .shape = {1, 1, 6}, .strides = {77, -5, 2}};
    float out[6];
    const attn_tensor read = {
        .data = out, .dtype = F32, .rank = 3, .shape = {1, 1, 6}, .strides = {6, 6, 1}};
    assert_int_equal(attn_mha_bind_parameter(layer, "bias_v", &view), ATTN_OK);
    for (int i = 0; i < 12; ++i) {
        memory[i] = (float)i;
    }
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "bias_v", &read), ATTN_OK);
    for (int i = 0; i < 6; ++i) {
        assert_true(out[i] == (float)(2 * i));
    }
    layer_end(layer, &counting);
}

/* Loaded, bound, loaded, bound, ...: memory is never lost, and the last one counts. */
static void bind_and_load_replace_each_other(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &config);
    const int64_t num_live = counting.live_blocks;
    for (int round = 0; round < 5; ++round) {
        layer_load_counting(layer, F32, "in_proj_weight", 18, 6, 1000 * round);
        assert_true(counting.live_blocks > num_live);
        parameter_values values = layer_read(layer, F32, "in_proj_weight", 18, 6);
        layer_assert_counting(&values, 0, 108, 1000 * round);
        const attn_tensor view = counting_view(18, 6, VALUES_DENSE, 50 + round);
        assert_int_equal(attn_mha_bind_parameter(layer, "in_proj_weight", &view), ATTN_OK);
        assert_int_equal(counting.live_blocks, num_live);
        values = layer_read(layer, F32, "in_proj_weight", 18, 6);
        layer_assert_counting(&values, 0, 108, 50 + round);
    }
    layer_end(layer, &counting);
}

/* Loading over a bound parameter must not write the caller's memory. */
static void load_over_bound_leaves_the_callers_memory(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &config);
    const attn_tensor view = counting_view(18, 6, VALUES_DENSE, 0);
    assert_int_equal(attn_mha_bind_parameter(layer, "in_proj_weight", &view), ATTN_OK);
    layer_load_counting(layer, F32, "k_proj_weight", 6, 6, 5000);
    for (int i = 0; i < 108; ++i) {
        assert_true(memory[i] == (float)i);
    }
    counting_view(18, 6, VALUES_DENSE, 200);
    const parameter_values values = layer_read(layer, F32, "in_proj_weight", 18, 6);
    layer_assert_counting(&values, 0, 36, 200);
    layer_assert_counting(&values, 36, 72, 5000 - 36);
    layer_assert_counting(&values, 72, 108, 200);
    layer_end(layer, &counting);
}

static void bound_part_joins_loaded_parts(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &config);
    layer_load_counting(layer, F32, "in_proj_bias", 18, 0, 0);
    const attn_tensor view = counting_view(6, 0, VALUES_REVERSED, 900);
    assert_int_equal(attn_mha_bind_parameter(layer, "q_proj_bias", &view), ATTN_OK);
    const parameter_values values = layer_read(layer, F32, "in_proj_bias", 18, 0);
    layer_assert_counting(&values, 0, 6, 900);
    layer_assert_counting(&values, 6, 18, 0);
    layer_end(layer, &counting);
}

static void read_into_bound_memory_is_refused(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &config);
    const attn_tensor view = counting_view(18, 6, VALUES_DENSE, 0);
    assert_int_equal(attn_mha_bind_parameter(layer, "in_proj_weight", &view), ATTN_OK);
    attn_tensor shifted = view;
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &view),
                     ATTN_ERROR_OVERLAP);
    shifted.data = memory + 107;
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &shifted),
                     ATTN_ERROR_OVERLAP);
    shifted.data = memory + 108;
    assert_int_equal(attn_mha_read_parameter(NULL, layer, "in_proj_weight", &shifted), ATTN_OK);
    for (int i = 0; i < 216; ++i) {
        assert_true(memory[i] == (float)(i % 108));
    }
    layer_end(layer, &counting);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bind_any_layout_sees_later_changes),
        cmocka_unit_test(bind_extra_key_sees_later_changes),
        cmocka_unit_test(bind_and_load_replace_each_other),
        cmocka_unit_test(load_over_bound_leaves_the_callers_memory),
        cmocka_unit_test(bound_part_joins_loaded_parts),
        cmocka_unit_test(read_into_bound_memory_is_refused),
    };
    return cmocka_run_group_tests_name("mha_bind", tests, NULL, NULL);
}
