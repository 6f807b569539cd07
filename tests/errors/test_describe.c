/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_describe.c: attn_sdpa_describe_outputs and attn_mha_describe_outputs beyond what the tables
 * of refused calls try of them, and attn_mha_describe, whose config must make the same layer again.
 */
#include <string.h>

#include "mha_fixture.h"
#include "sdpa_fixture.h"

#define POWER(exponent) (INT64_C(1) << (exponent))

static mha_layer layer;

/* ---- outputs ---- */

static void assert_view(const char *name, const attn_tensor *view, const attn_tensor *like) {
    if (view->dtype != like->dtype || view->rank != like->rank ||
        memcmp(view->shape, like->shape, (size_t)like->rank * sizeof(int64_t)) != 0 ||
        memcmp(view->strides, like->strides, (size_t)like->rank * sizeof(int64_t)) != 0) {
        fail_msg("%s: not the view that the call takes", name);
    }
    assert_null(view->data);
}

/* The described views, given memory, are those of the fixture's call. */
static void outputs_are_those_the_calls_take(void **state) {
    (void)state;
    sdpa_fixture sdpa;
    sdpa_fixture_prepare(&sdpa, NULL);
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    refusal_assert_ok("attn_sdpa_describe_outputs", sdpa_fixture_describe_outputs(&sdpa, &outputs));
    assert_view("output", &outputs.output, &sdpa.views[SDPA_OUTPUT]);
    assert_view("lse", &outputs.lse, &sdpa.views[SDPA_LSE]);
    assert_view("weights", &outputs.weights, &sdpa.views[SDPA_WEIGHTS]);
    assert_view("averaged", &outputs.averaged_weights, &sdpa.views[SDPA_AVERAGE_WEIGHTS]);
    assert_view("scores", &outputs.scores, &sdpa.views[SDPA_SCORES]);
    mha_fixture mha;
    mha_fixture_prepare(&mha, NULL, &layer);
    attn_mha_outputs of_layer = {.struct_size = sizeof of_layer};
    refusal_assert_ok("attn_mha_describe_outputs", mha_fixture_describe_outputs(&mha, &of_layer));
    assert_view("output", &of_layer.output, &mha.views[MHA_OUTPUT]);
    assert_view("lse", &of_layer.lse, &mha.views[MHA_ATTENTION_LSE]);
    assert_view("weights", &of_layer.weights, &mha.views[MHA_ATTENTION_WEIGHTS]);
    assert_view("averaged", &of_layer.averaged_weights, &mha.views[MHA_AVERAGE_WEIGHTS]);
    assert_view("scores", &of_layer.scores, &mha.views[MHA_ATTENTION_SCORES]);
}

/* Without a logarithm of a sum there is no lse: all zero. Outputs that the options hold already are
 * not looked at. */
static void outputs_follow_the_normalizer_and_not_the_given_outputs(void **state) {
    (void)state;
    static const attn_tensor nothing;
    const attn_tensor nonsense = {.dtype = 99, .rank = -7};
    attn_sdpa_report report = {.struct_size = 1};
    for (int32_t normalizer = 0; normalizer <= ATTN_NORMALIZER_LINEAR; ++normalizer) {
        sdpa_fixture sdpa;
        mha_fixture mha;
        attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
        attn_mha_outputs of_layer = {.struct_size = sizeof of_layer};
        sdpa_fixture_prepare(&sdpa, NULL);
        mha_fixture_prepare(&mha, NULL, &layer);
        mha.options.attention = &mha.attention;
        attn_sdpa_params *const params[] = {&sdpa.options, &mha.attention};
        for (int i = 0; i < 2; ++i) {
            params[i]->normalizer = normalizer;
            params[i]->lse = &nonsense;
            params[i]->weights = &nonsense;
            params[i]->scores = &nonsense;
            params[i]->scores_stage = ATTN_SCORE_MASKED;
            params[i]->report = &report;
        }
        refusal_assert_ok("attn_sdpa_describe_outputs",
                          sdpa_fixture_describe_outputs(&sdpa, &outputs));
        refusal_assert_ok("attn_mha_describe_outputs",
                          mha_fixture_describe_outputs(&mha, &of_layer));
        const bool has_lse = normalizer == ATTN_NORMALIZER_SOFTMAX;
        assert_int_equal(memcmp(&outputs.lse, &nothing, sizeof nothing) != 0, has_lse);
        assert_int_equal(memcmp(&of_layer.lse, &nothing, sizeof nothing) != 0, has_lse);
        assert_view("weights", &outputs.weights, &sdpa.views[SDPA_WEIGHTS]);
    }
}

static void outputs_null_and_layer_null_are_refused(void **state) {
    (void)state;
    sdpa_fixture sdpa;
    sdpa_fixture_prepare(&sdpa, NULL);
    refusal_assert("attn_sdpa_describe_outputs", sdpa_fixture_describe_outputs(&sdpa, NULL),
                   ATTN_ERROR_NULL, "outputs: expected a struct to fill, got NULL");
    mha_fixture mha;
    mha_fixture_prepare(&mha, NULL, &layer);
    refusal_assert("attn_mha_describe_outputs", mha_fixture_describe_outputs(&mha, NULL),
                   ATTN_ERROR_NULL, "outputs: expected a struct to fill, got NULL");
    attn_mha_outputs outputs;
    refusal_fill(&outputs, sizeof outputs);
    outputs.struct_size = sizeof outputs;
    mha.layer = NULL;
    refusal_assert("attn_mha_describe_outputs", mha_fixture_describe_outputs(&mha, &outputs),
                   ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    refusal_assert_untouched("outputs", &outputs.output,
                             sizeof outputs - offsetof(attn_mha_outputs, output));
    attn_mha_report report = {.struct_size = sizeof report};
    refusal_assert("attn_mha_explain", mha_fixture_explain(&mha, &report), ATTN_ERROR_NULL,
                   "layer: expected a layer, got NULL");
    refusal_assert("attn_mha_explain", mha_fixture_explain(&mha, NULL), ATTN_ERROR_NULL,
                   "report: expected a struct to fill, got NULL");
}

/* Inputs that are views of one element, repeated, so that only the outputs are too large. */
static void outputs_beyond_int64_are_refused(void **state) {
    (void)state;
    static const struct {
        int32_t dtype;
        int64_t query[3], key[3], value[3];
        const char *line;
    } cases[] = {
        {ATTN_DTYPE_FLOAT32,
         {POWER(40), 1, 1},
         {1, 1, 1},
         {1, 1, POWER(30)},
         "output: shape (1099511627776, 1, 1073741824) with its strides exceeds 2^63 bytes"},
        {ATTN_DTYPE_FLOAT32,
         {1, POWER(31), 1},
         {1, POWER(31), 1},
         {1, POWER(31), 1},
         "weights: shape (1, 2147483648, 2147483648) with its strides exceeds 2^63 bytes"},
        {ATTN_DTYPE_BFLOAT16,
         {1, POWER(30), 1},
         {1, POWER(31), 1},
         {1, POWER(31), 1},
         "scores: shape (1, 1073741824, 2147483648) with its strides exceeds 2^63 bytes"},
    };
    static const int64_t strides[3];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        attn_tensor query, key, value;
        attn_sdpa_outputs outputs;
        const int32_t dtype = cases[i].dtype;
        refusal_assert_ok(
            "query", attn_tensor_init_strided(&query, NULL, dtype, 3, cases[i].query, strides));
        refusal_assert_ok("key",
                          attn_tensor_init_strided(&key, NULL, dtype, 3, cases[i].key, strides));
        refusal_assert_ok(
            "value", attn_tensor_init_strided(&value, NULL, dtype, 3, cases[i].value, strides));
        refusal_fill(&outputs, sizeof outputs);
        outputs.struct_size = sizeof outputs;
        refusal_assert("attn_sdpa_describe_outputs",
                       attn_sdpa_describe_outputs(&query, &key, &value, NULL, &outputs),
                       ATTN_ERROR_OVERFLOW, cases[i].line);
        refusal_assert_untouched("outputs", &outputs.output,
                                 sizeof outputs - offsetof(attn_sdpa_outputs, output));
    }
}

/* What a call would run can be asked before there are parameters, which only the call wants. */
static void layer_without_parameters_can_be_explained(void **state) {
    (void)state;
    const attn_mha_config config = mha_fixture_config();
    mha_layer bare;
    mha_parameters_fill(&bare.parameters);
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &bare.layer));
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &bare);
    attn_sdpa_report inside = {.struct_size = sizeof inside};
    attn_mha_report report = {.struct_size = sizeof report, .attention = &inside};
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    size_t bytes = 0;
    refusal_assert_ok("attn_mha_explain", mha_fixture_explain(&fixture, &report));
    refusal_assert_ok("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes));
    refusal_assert_ok("attn_mha_describe_outputs",
                      mha_fixture_describe_outputs(&fixture, &outputs));
    assert_int_equal(report.workspace_bytes, bytes);
    assert_int_equal(report.projection_gemm, ATTN_GEMM_NATIVE);
    assert_int_equal(report.depends_on_blas_threads, 0);
    assert_int_equal(inside.engine, ATTN_ENGINE_FUSED);
    assert_string_equal(inside.kernels, report.kernels);
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_PARAMETER,
                   "q_proj_weight: expected a parameter that has been loaded or bound, got none");
    attn_mha_destroy(bare.layer);
}

/* Weights of a layer whose sequences are a single row, repeated. */
static void layer_outputs_beyond_int64_are_refused(void **state) {
    (void)state;
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = 1, .num_heads = 1, .batch_first = 1};
    const int64_t shape[] = {1, POWER(31), 1};
    static const int64_t strides[3];
    attn_mha *small;
    attn_tensor rows;
    attn_mha_outputs outputs;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &small));
    refusal_assert_ok("rows",
                      attn_tensor_init_strided(&rows, NULL, ATTN_DTYPE_FLOAT32, 3, shape, strides));
    refusal_fill(&outputs, sizeof outputs);
    outputs.struct_size = sizeof outputs;
    refusal_assert("attn_mha_describe_outputs",
                   attn_mha_describe_outputs(small, &rows, &rows, &rows, NULL, &outputs),
                   ATTN_ERROR_OVERFLOW,
                   "weights: shape (1, 1, 2147483648, 2147483648) with its strides exceeds 2^63 "
                   "bytes");
    refusal_assert_untouched("outputs", &outputs.output,
                             sizeof outputs - offsetof(attn_mha_outputs, output));
    attn_mha_destroy(small);
}

/* ---- a layer's config ---- */

typedef struct described {
    const char *name;
    attn_mha_config given;
    attn_mha_config resolved; /* struct_size aside */
} described;

static const described layers[] = {
    {"pytorch",
     {.embed_dim = 8, .num_heads = 2},
     {.embed_dim = 8,
      .num_heads = 2,
      .kdim = 8,
      .vdim = 8,
      .qdim = 8,
      .num_kv_heads = 2,
      .head_dim = 4,
      .value_head_dim = 4,
      .dtype = ATTN_DTYPE_FLOAT32,
      .parameter_dtype = ATTN_DTYPE_FLOAT32}},
    {"every_size",
     {.embed_dim = 8,
      .num_heads = 6,
      .kdim = 3,
      .vdim = 4,
      .qdim = 5,
      .num_kv_heads = 2,
      .head_dim = 7,
      .value_head_dim = 9,
      .dtype = ATTN_DTYPE_FLOAT64},
     {.embed_dim = 8,
      .num_heads = 6,
      .kdim = 3,
      .vdim = 4,
      .qdim = 5,
      .num_kv_heads = 2,
      .head_dim = 7,
      .value_head_dim = 9,
      .dtype = ATTN_DTYPE_FLOAT64,
      .parameter_dtype = ATTN_DTYPE_FLOAT64}},
    {"every_option",
     {.embed_dim = 6,
      .num_heads = 3,
      .head_dim = 5,
      .no_bias = 1,
      .add_bias_kv = 1,
      .add_zero_attn = 1,
      .batch_first = 1},
     {.embed_dim = 6,
      .num_heads = 3,
      .kdim = 6,
      .vdim = 6,
      .qdim = 6,
      .num_kv_heads = 3,
      .head_dim = 5,
      .value_head_dim = 5,
      .dtype = ATTN_DTYPE_FLOAT32,
      .no_bias = 1,
      .add_bias_kv = 1,
      .add_zero_attn = 1,
      .batch_first = 1,
      .parameter_dtype = ATTN_DTYPE_FLOAT32}},
    {"narrow_parameters",
     {.embed_dim = 4, .num_heads = 1, .parameter_dtype = ATTN_DTYPE_BFLOAT16},
     {.embed_dim = 4,
      .num_heads = 1,
      .kdim = 4,
      .vdim = 4,
      .qdim = 4,
      .num_kv_heads = 1,
      .head_dim = 4,
      .value_head_dim = 4,
      .dtype = ATTN_DTYPE_FLOAT32,
      .parameter_dtype = ATTN_DTYPE_BFLOAT16}},
    {"int8_parameters",
     {.embed_dim = 4, .num_heads = 1, .parameter_dtype = ATTN_DTYPE_INT8},
     {.embed_dim = 4,
      .num_heads = 1,
      .kdim = 4,
      .vdim = 4,
      .qdim = 4,
      .num_kv_heads = 1,
      .head_dim = 4,
      .value_head_dim = 4,
      .dtype = ATTN_DTYPE_FLOAT32,
      .parameter_dtype = ATTN_DTYPE_INT8}},
    {"zero_column_alone",
     {.embed_dim = 4, .num_heads = 1, .add_zero_attn = 1},
     {.embed_dim = 4,
      .num_heads = 1,
      .kdim = 4,
      .vdim = 4,
      .qdim = 4,
      .num_kv_heads = 1,
      .head_dim = 4,
      .value_head_dim = 4,
      .dtype = ATTN_DTYPE_FLOAT32,
      .add_zero_attn = 1,
      .parameter_dtype = ATTN_DTYPE_FLOAT32}},
};

static void assert_same_parameters(const attn_mha *a, const attn_mha *b) {
    int64_t count_a, count_b;
    refusal_assert_ok("attn_mha_parameter_count", attn_mha_parameter_count(a, &count_a));
    refusal_assert_ok("attn_mha_parameter_count", attn_mha_parameter_count(b, &count_b));
    assert_int_equal(count_a, count_b);
    for (int64_t i = 0; i < count_a; ++i) {
        const char *name_a, *name_b;
        attn_tensor shape_a, shape_b;
        refusal_assert_ok("attn_mha_parameter_describe",
                          attn_mha_parameter_describe(a, i, &name_a, &shape_a));
        refusal_assert_ok("attn_mha_parameter_describe",
                          attn_mha_parameter_describe(b, i, &name_b, &shape_b));
        assert_string_equal(name_a, name_b);
        assert_memory_equal(&shape_a, &shape_b, sizeof shape_a);
    }
}

static void layer_describes_a_config_that_makes_it_again(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; ++i) {
        attn_mha_config given = layers[i].given;
        attn_mha_config expected = layers[i].resolved;
        given.struct_size = sizeof given;
        expected.struct_size = sizeof expected;
        attn_mha *first, *second;
        attn_mha_config of_first, of_second = {.struct_size = sizeof of_second};
        refusal_fill(&of_first, sizeof of_first);
        of_first.struct_size = sizeof of_first;
        refusal_assert_ok(layers[i].name, attn_mha_create(NULL, &given, &first));
        refusal_assert_ok("attn_mha_describe", attn_mha_describe(first, &of_first));
        assert_memory_equal(&of_first, &expected, sizeof expected);
        refusal_assert_ok(layers[i].name, attn_mha_create(NULL, &of_first, &second));
        refusal_assert_ok("attn_mha_describe", attn_mha_describe(second, &of_second));
        assert_memory_equal(&of_second, &expected, sizeof expected);
        assert_same_parameters(first, second);
        attn_mha_destroy(first);
        attn_mha_destroy(second);
    }
}

static void layer_null_and_config_null_are_refused(void **state) {
    (void)state;
    attn_mha_config config;
    refusal_fill(&config, sizeof config);
    config.struct_size = sizeof config;
    refusal_assert("attn_mha_describe", attn_mha_describe(NULL, &config), ATTN_ERROR_NULL,
                   "layer: expected a layer, got NULL");
    refusal_assert_untouched("config", &config.embed_dim,
                             sizeof config - offsetof(attn_mha_config, embed_dim));
    refusal_assert("attn_mha_describe", attn_mha_describe(layer.layer, NULL), ATTN_ERROR_NULL,
                   "config: expected a struct to fill, got NULL");
}

static int make_layer(void **state) {
    (void)state;
    mha_layer_create(&layer, NULL);
    return 0;
}

static int free_layer(void **state) {
    (void)state;
    attn_mha_destroy(layer.layer);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_those_the_calls_take),
        cmocka_unit_test(outputs_follow_the_normalizer_and_not_the_given_outputs),
        cmocka_unit_test(outputs_null_and_layer_null_are_refused),
        cmocka_unit_test(outputs_beyond_int64_are_refused),
        cmocka_unit_test(layer_outputs_beyond_int64_are_refused),
        cmocka_unit_test(layer_without_parameters_can_be_explained),
        cmocka_unit_test(layer_describes_a_config_that_makes_it_again),
        cmocka_unit_test(layer_null_and_config_null_are_refused),
    };
    return cmocka_run_group_tests_name("descriptions", tests, make_layer, free_layer);
}
