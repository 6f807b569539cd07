/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_int8.c: what loading, binding and reading say of a layer that keeps its weights as
 * int8. A parameter keeps its value when a load or bind is refused.
 */
#include "refusal.h"

enum { EMBED = 4, KDIM = 3 };

/* (4, 3) int8, and its scales; large enough for every view of the tables. */
static int8_t integers[EMBED * EMBED];
static double scales[EMBED];
static float numbers[EMBED * EMBED];

static const attn_mha_config config = {.struct_size = sizeof config,
                                       .embed_dim = EMBED,
                                       .num_heads = 2,
                                       .kdim = KDIM,
                                       .parameter_dtype = ATTN_DTYPE_INT8};

#define INTEGERS                                                                       \
    {                                                                                  \
        .data = integers, .dtype = ATTN_DTYPE_INT8, .rank = 2, .shape = {EMBED, KDIM}, \
        .strides = {                                                                   \
            KDIM,                                                                      \
            1                                                                          \
        }                                                                              \
    }
#define NUMBERS                                                                          \
    {                                                                                    \
        .data = numbers, .dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {EMBED, KDIM}, \
        .strides = {                                                                     \
            KDIM,                                                                        \
            1                                                                            \
        }                                                                                \
    }
#define SCALES                                                                                     \
    {                                                                                              \
        .data = scales, .dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {EMBED}, .strides = { 1 } \
    }

typedef struct load_refusal {
    const char *name;
    const char *parameter;
    attn_tensor values;
    attn_tensor scale; /* rank 0: NULL */
    attn_status status;
    const char *line;
} load_refusal;

static const load_refusal refused_loads[] = {
    {.name = "load_int8_without_scale_is_refused",
     .parameter = "k_proj_weight",
     .values = INTEGERS,
     .status = ATTN_ERROR_NULL,
     .line = "scale: expected the scales of int8 values, got NULL"},
    {.name = "load_scale_beside_float32_is_refused",
     .parameter = "k_proj_weight",
     .values = NUMBERS,
     .scale = SCALES,
     .status = ATTN_ERROR_VALUE,
     .line = "scale: expected NULL beside values of float32, got a tensor"},
    {.name = "load_scale_without_data_is_refused",
     .parameter = "k_proj_weight",
     .values = INTEGERS,
     .scale = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {EMBED}, .strides = {1}},
     .status = ATTN_ERROR_NULL,
     .line = "scale: expected data for shape (4), got NULL"},
    {.name = "load_scale_int64_is_refused",
     .parameter = "k_proj_weight",
     .values = INTEGERS,
     .scale =
         {.data = scales, .dtype = ATTN_DTYPE_INT64, .rank = 1, .shape = {EMBED}, .strides = {1}},
     .status = ATTN_ERROR_DTYPE,
     .line = "scale: expected dtype float32, float64, bfloat16 or float16, got int64"},
    {.name = "load_scale_of_columns_is_refused",
     .parameter = "k_proj_weight",
     .values = INTEGERS,
     .scale =
         {.data = scales, .dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {KDIM}, .strides = {1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "scale: expected shape (4), got (3)"},
    {.name = "load_scale_of_blocks_is_refused",
     .parameter = "k_proj_weight",
     .values = INTEGERS,
     .scale = {.data = scales,
               .dtype = ATTN_DTYPE_FLOAT32,
               .rank = 2,
               .shape = {EMBED, 2},
               .strides = {1, 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "scale: expected shape (4, 1), got (4, 2)"},
    {.name = "load_int8_of_another_shape_is_refused",
     .parameter = "q_proj_weight",
     .values = INTEGERS,
     .scale = SCALES,
     .status = ATTN_ERROR_SHAPE,
     .line = "q_proj_weight: expected shape (4, 4), got (4, 3)"},
    {.name = "load_int8_bias_is_refused",
     .parameter = "out_proj.bias",
     .values =
         {.data = integers, .dtype = ATTN_DTYPE_INT8, .rank = 1, .shape = {EMBED}, .strides = {1}},
     .scale = SCALES,
     .status = ATTN_ERROR_DTYPE,
     .line = "out_proj.bias: expected dtype float32, float64, bfloat16 or float16, got int8"},
    {.name = "load_uint8_is_refused",
     .parameter = "k_proj_weight",
     .values = {.data = integers,
                .dtype = ATTN_DTYPE_UINT8,
                .rank = 2,
                .shape = {EMBED, KDIM},
                .strides = {KDIM, 1}},
     .status = ATTN_ERROR_DTYPE,
     .line =
         "k_proj_weight: expected dtype float32, float64, bfloat16, float16 or int8, got uint8"},
    {.name = "load_scales_alone_is_refused",
     .parameter = "k_proj_weight.scale",
     .values = SCALES,
     .status = ATTN_ERROR_PARAMETER,
     .line =
         "k_proj_weight.scale: expected to be read only; scales are loaded beside their weight"},
    {.name = "load_scales_of_packed_layer_is_refused",
     .parameter = "in_proj_weight.scale",
     .values = SCALES,
     .status = ATTN_ERROR_PARAMETER,
     .line = "name: expected one of this layer's parameters (q_proj_weight, k_proj_weight, "
             "v_proj_weight, in_proj_bias, out_proj.weight, out_proj.bias), got "
             "\"in_proj_weight.scale\""},
};

static attn_mha *layer;

static attn_status load(const char *name, const attn_tensor *values, const attn_tensor *scale) {
    const attn_mha_load_params params = {.struct_size = sizeof params, .scale = scale};
    return attn_mha_load_parameter(NULL, layer, name, values, &params);
}

static void set_weight(void) {
    for (int i = 0; i < EMBED * KDIM; ++i) {
        integers[i] = (int8_t)(9 * i - 50);
    }
    float ones[EMBED] = {1, 1, 1, 1};
    const attn_tensor values = INTEGERS;
    attn_tensor scale = SCALES;
    scale.data = ones;
    refusal_assert_ok("attn_mha_load_parameter", load("k_proj_weight", &values, &scale));
}

static void assert_weight_is_kept(void) {
    int8_t kept[EMBED * KDIM];
    attn_tensor view = INTEGERS;
    view.data = kept;
    refusal_assert_ok("attn_mha_read_parameter",
                      attn_mha_read_parameter(NULL, layer, "k_proj_weight", &view));
    for (int i = 0; i < EMBED * KDIM; ++i) {
        assert_int_equal(kept[i], 9 * i - 50);
    }
}

static void test_load(void **state) {
    const load_refusal *entry = *state;
    set_weight();
    refusal_assert(
        "attn_mha_load_parameter",
        load(entry->parameter, &entry->values, entry->scale.rank > 0 ? &entry->scale : NULL),
        entry->status, entry->line);
    assert_weight_is_kept();
}

static void weights_of_int8_are_not_bound(void **state) {
    (void)state;
    static const char line[] =
        "k_proj_weight: expected attn_mha_load_parameter: weights of int8 are not bound";
    const attn_tensor values = INTEGERS, wide = NUMBERS, scale = SCALES;
    set_weight();
    refusal_assert("attn_mha_bind_parameter",
                   attn_mha_bind_parameter(layer, "k_proj_weight", &values), ATTN_ERROR_UNSUPPORTED,
                   line);
    refusal_assert("attn_mha_bind_parameter",
                   attn_mha_bind_parameter(layer, "k_proj_weight", &wide), ATTN_ERROR_UNSUPPORTED,
                   line);
    refusal_assert(
        "attn_mha_bind_parameter", attn_mha_bind_parameter(layer, "k_proj_weight.scale", &scale),
        ATTN_ERROR_PARAMETER,
        "k_proj_weight.scale: expected to be read only; scales are loaded beside their weight");
    assert_weight_is_kept();
}

static void reads_of_other_types_are_refused(void **state) {
    (void)state;
    attn_tensor view = SCALES;
    set_weight();
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, layer, "q_proj_weight.scale", &view),
                   ATTN_ERROR_PARAMETER,
                   "q_proj_weight.scale: expected a parameter that has been loaded or bound, got "
                   "none");
    view.dtype = ATTN_DTYPE_FLOAT64;
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, layer, "k_proj_weight.scale", &view),
                   ATTN_ERROR_DTYPE, "k_proj_weight.scale: expected dtype float32, got float64");
    attn_tensor weight = NUMBERS;
    weight.dtype = ATTN_DTYPE_BFLOAT16;
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, layer, "k_proj_weight", &weight), ATTN_ERROR_DTYPE,
                   "k_proj_weight: expected dtype float32 or int8, got bfloat16");
}

static void layers_of_floats_have_no_scales_and_take_no_integers(void **state) {
    (void)state;
    attn_mha_config wide = config;
    wide.parameter_dtype = 0;
    attn_mha *of_floats;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &wide, &of_floats));
    const attn_tensor values = INTEGERS, scale = SCALES;
    const attn_mha_load_params params = {.struct_size = sizeof params, .scale = &scale};
    refusal_assert("attn_mha_load_parameter",
                   attn_mha_load_parameter(NULL, of_floats, "k_proj_weight", &values, &params),
                   ATTN_ERROR_DTYPE,
                   "k_proj_weight: expected dtype float32, float64, bfloat16 or float16, got int8");
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, of_floats, "k_proj_weight.scale", &scale),
                   ATTN_ERROR_PARAMETER, "name: expected one of this layer's parameters (...");
    attn_mha_destroy(of_floats);
}

/* A weight's bytes fit, its scales' beside them do not. */
static void scales_beyond_int64_are_refused(void **state) {
    (void)state;
    attn_mha_config huge = {.struct_size = sizeof huge,
                            .embed_dim = (INT64_C(1) << 62) / 3 + 64,
                            .num_heads = 1,
                            .qdim = 1,
                            .kdim = 1,
                            .vdim = 1,
                            .head_dim = 2,
                            .no_bias = 1,
                            .parameter_dtype = ATTN_DTYPE_INT8};
    attn_mha *made;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &huge, &made));
    int8_t zero = 0;
    float one = 1;
    const attn_tensor values = {.data = &zero,
                                .dtype = ATTN_DTYPE_INT8,
                                .rank = 2,
                                .shape = {huge.embed_dim, 2},
                                .strides = {0, 0}};
    const attn_tensor scale = {.data = &one,
                               .dtype = ATTN_DTYPE_FLOAT32,
                               .rank = 1,
                               .shape = {huge.embed_dim},
                               .strides = {0}};
    const attn_mha_load_params params = {.struct_size = sizeof params, .scale = &scale};
    refusal_assert(
        "attn_mha_load_parameter",
        attn_mha_load_parameter(NULL, made, "out_proj.weight", &values, &params),
        ATTN_ERROR_OVERFLOW,
        "out_proj.weight: expected at most 2^63 - 1 bytes in strips of 16 rows, got ...");
    attn_mha_destroy(made);
}

static void calls_of_integers_are_not_saved(void **state) {
    (void)state;
    float memory[64] = {0};
    const int64_t shape[] = {1, 1, config.embed_dim};
    attn_tensor view;
    refusal_assert_ok("attn_tensor_init",
                      attn_tensor_init(&view, memory, ATTN_DTYPE_FLOAT32, 3, shape));
    size_t bytes = 7;
    refusal_assert("attn_mha_saved_bytes",
                   attn_mha_saved_bytes(NULL, layer, &view, &view, &view, NULL, &bytes),
                   ATTN_ERROR_UNSUPPORTED,
                   "layer: expected parameters of a floating-point type with saved and where "
                   "gradients are wanted, got int8");
    assert_int_equal(bytes, 7);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(calls_of_integers_are_not_saved),
    cmocka_unit_test(weights_of_int8_are_not_bound),
    cmocka_unit_test(reads_of_other_types_are_refused),
    cmocka_unit_test(layers_of_floats_have_no_scales_and_take_no_integers),
    cmocka_unit_test(scales_beyond_int64_are_refused),
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused_loads / sizeof refused_loads[0]; ++i) {
        refusal_suite_add(&suite, refused_loads[i].name, test_load, &refused_loads[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    if (attn_mha_create(NULL, &config, &layer) != ATTN_OK) {
        return 1;
    }
    const int result = refusal_suite_run(&suite, "errors of int8 weights");
    attn_mha_destroy(layer);
    return result;
}
