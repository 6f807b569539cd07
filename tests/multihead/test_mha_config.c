/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_config.c: which parameters a layer of a config has: names, shapes and order of
 * torch.nn.MultiheadAttention's state_dict.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "layer_tools.h"

struct listed {
    const char *name;
    int32_t rank;
    int64_t shape[3];
};

enum { MOST_LISTED = 9 };

struct config_case {
    attn_mha_config config;
    struct listed parameters[MOST_LISTED + 1]; /* ends with a NULL name */
};

#define CONFIG(...) \
    { .struct_size = sizeof(attn_mha_config), __VA_ARGS__ }

/* The first five are what PyTorch 2.13 lists for the constructor's arguments; the others follow the
 * rule of multihead.h. */
static const struct config_case cases[] = {
    {CONFIG(.embed_dim = 12, .num_heads = 3),
     {{"in_proj_weight", 2, {36, 12}},
      {"in_proj_bias", 1, {36}},
      {"out_proj.weight", 2, {12, 12}},
      {"out_proj.bias", 1, {12}}}},
    {CONFIG(.embed_dim = 12, .num_heads = 3, .no_bias = 1),
     {{"in_proj_weight", 2, {36, 12}}, {"out_proj.weight", 2, {12, 12}}}},
    {CONFIG(.embed_dim = 12, .num_heads = 3, .add_bias_kv = 1),
     {{"in_proj_weight", 2, {36, 12}},
      {"in_proj_bias", 1, {36}},
      {"bias_k", 3, {1, 1, 12}},
      {"bias_v", 3, {1, 1, 12}},
      {"out_proj.weight", 2, {12, 12}},
      {"out_proj.bias", 1, {12}}}},
    {CONFIG(.embed_dim = 12, .num_heads = 4, .kdim = 5, .vdim = 7, .add_bias_kv = 1),
     {{"q_proj_weight", 2, {12, 12}},
      {"k_proj_weight", 2, {12, 5}},
      {"v_proj_weight", 2, {12, 7}},
      {"in_proj_bias", 1, {36}},
      {"bias_k", 3, {1, 1, 12}},
      {"bias_v", 3, {1, 1, 12}},
      {"out_proj.weight", 2, {12, 12}},
      {"out_proj.bias", 1, {12}}}},
    {CONFIG(.embed_dim = 12, .num_heads = 3, .kdim = 12, .vdim = 12, .add_zero_attn = 1,
            .batch_first = 1),
     {{"in_proj_weight", 2, {36, 12}},
      {"in_proj_bias", 1, {36}},
      {"out_proj.weight", 2, {12, 12}},
      {"out_proj.bias", 1, {12}}}},
    /* only one of the three differs */
    {CONFIG(.embed_dim = 6, .num_heads = 1, .qdim = 5, .no_bias = 1),
     {{"q_proj_weight", 2, {6, 5}},
      {"k_proj_weight", 2, {6, 6}},
      {"v_proj_weight", 2, {6, 6}},
      {"out_proj.weight", 2, {6, 6}}}},
    {CONFIG(.embed_dim = 6, .num_heads = 1, .vdim = 5, .no_bias = 1),
     {{"q_proj_weight", 2, {6, 6}},
      {"k_proj_weight", 2, {6, 6}},
      {"v_proj_weight", 2, {6, 5}},
      {"out_proj.weight", 2, {6, 6}}}},
    /* grouped queries, heads of their own width */
    {CONFIG(.embed_dim = 10, .num_heads = 6, .num_kv_heads = 2, .head_dim = 3, .value_head_dim = 4,
            .add_bias_kv = 1),
     {{"in_proj_weight", 2, {18 + 6 + 8, 10}},
      {"in_proj_bias", 1, {32}},
      {"bias_k", 3, {1, 1, 6}},
      {"bias_v", 3, {1, 1, 8}},
      {"out_proj.weight", 2, {10, 24}},
      {"out_proj.bias", 1, {10}}}},
    /* full-width heads */
    {CONFIG(.embed_dim = 4, .num_heads = 3, .head_dim = 4, .kdim = 2, .no_bias = 1),
     {{"q_proj_weight", 2, {12, 4}},
      {"k_proj_weight", 2, {12, 2}},
      {"v_proj_weight", 2, {12, 4}},
      {"out_proj.weight", 2, {4, 12}}}},
};

enum { NUM_CASES = sizeof cases / sizeof cases[0] };

static void check_described(const attn_mha *layer, int64_t index, const struct listed *expected,
                            int32_t dtype) {
    const char *name = NULL;
    attn_tensor shape;
    memset(&shape, 0x55, sizeof shape);
    assert_int_equal(attn_mha_parameter_describe(layer, index, &name, &shape), ATTN_OK);
    assert_string_equal(name, expected->name);
    assert_int_equal(shape.dtype, dtype);
    assert_int_equal(shape.rank, expected->rank);
    assert_memory_equal(shape.shape, expected->shape,
                        (size_t)expected->rank * sizeof shape.shape[0]);
    assert_true(attn_tensor_is_contiguous(&shape));
    assert_int_equal(shape.strides[0], layer_count(&shape) / shape.shape[0]);
    assert_null(shape.data);
    assert_int_equal(attn_mha_parameter_describe(layer, index, NULL, NULL), ATTN_OK);
}

static void parameters_are_pytorchs_in_its_order(void **state) {
    (void)state;
    for (int i = 0; i < 2 * NUM_CASES; ++i) {
        counting_allocator counting;
        attn_mha_config config = cases[i / 2].config;
        config.dtype = i % 2 == 0 ? 0 : ATTN_DTYPE_FLOAT64;
        attn_mha *layer = layer_make(&counting, &config);
        int64_t count = -1;
        int64_t listed = 0;
        for (; cases[i / 2].parameters[listed].name != NULL; ++listed) {
            check_described(layer, listed, &cases[i / 2].parameters[listed],
                            i % 2 == 0 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64);
        }
        assert_int_equal(attn_mha_parameter_count(layer, &count), ATTN_OK);
        assert_int_equal(count, listed);
        layer_end(layer, &counting);
    }
}

static void describe_index_outside_is_refused(void **state) {
    (void)state;
    counting_allocator counting;
    attn_mha *layer = layer_make(&counting, &cases[0].config);
    static const int64_t indices[] = {-1, 4, 100, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof indices / sizeof indices[0]; ++i) {
        const char *name = "untouched";
        attn_tensor shape = {.rank = 77};
        assert_int_equal(attn_mha_parameter_describe(layer, indices[i], &name, &shape),
                         ATTN_ERROR_VALUE);
        assert_string_equal(name, "untouched");
        assert_int_equal(shape.rank, 77);
    }
    layer_end(layer, &counting);
}

/* Every listed parameter can be loaded with the shape described, and with no other. */
static void described_shape_is_the_one_accepted(void **state) {
    (void)state;
    static double memory[LAYER_MOST_VALUES];
    for (int i = 0; i < NUM_CASES; ++i) {
        counting_allocator counting;
        attn_mha *layer = layer_make(&counting, &cases[i].config);
        for (int64_t index = 0; cases[i].parameters[index].name != NULL; ++index) {
            const char *name;
            attn_tensor shape;
            assert_int_equal(attn_mha_parameter_describe(layer, index, &name, &shape), ATTN_OK);
            shape.data = memory;
            assert_int_equal(attn_mha_load_parameter(NULL, layer, name, &shape, NULL), ATTN_OK);
            shape.shape[shape.rank - 1] += 1;
            assert_int_equal(attn_mha_load_parameter(NULL, layer, name, &shape, NULL),
                             ATTN_ERROR_SHAPE);
            shape.shape[shape.rank - 1] -= 1;
            shape.rank -= 1;
            assert_int_equal(attn_mha_load_parameter(NULL, layer, name, &shape, NULL),
                             ATTN_ERROR_SHAPE);
        }
        layer_end(layer, &counting);
    }
}

static void create_refused_allocation_gives_no_layer(void **state) {
    (void)state;
    counting_allocator counting;
    attn_context_config params = {.struct_size = sizeof params, .num_threads = 1};
    attn_context *context;
    attn_mha *layer = (attn_mha *)&counting;
    counting_allocator_init(&counting);
    counting_allocator_use(&counting, &params);
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    counting_allocator_fail(&counting, 1, false);
    assert_int_equal(attn_mha_create(context, &cases[0].config, &layer), ATTN_ERROR_MEMORY);
    assert_null(layer);
    attn_context_destroy(context);
    assert_int_equal(counting.live_blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_pytorchs_in_its_order),
        cmocka_unit_test(describe_index_outside_is_refused),
        cmocka_unit_test(described_shape_is_the_one_accepted),
        cmocka_unit_test(create_refused_allocation_gives_no_layer),
    };
    return cmocka_run_group_tests_name("mha_config", tests, NULL, NULL);
}
