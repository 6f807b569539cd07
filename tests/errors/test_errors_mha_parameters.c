/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_parameters.c: what describing, loading, binding, reading and initialising a
 * layer's parameters say of arguments they refuse. A parameter keeps its value when a load or bind
 * is refused, and the layer stays usable.
 */
#include "mha_refusal.h"

static void parameter_count_refuses_null(void **state) {
    (void)state;
    int64_t count = 77;
    refusal_assert("attn_mha_parameter_count", attn_mha_parameter_count(NULL, &count),
                   ATTN_ERROR_NULL, "layer: expected a pointer, got NULL");
    assert_int_equal(count, 77);
    refusal_assert("attn_mha_parameter_count",
                   attn_mha_parameter_count(mha_refusal_layer.layer, NULL), ATTN_ERROR_NULL,
                   "count: expected a pointer, got NULL");
}

static void parameter_describe_refuses_index_outside(void **state) {
    (void)state;
    static const struct {
        int64_t index;
        const char *line;
    } outside[] = {
        {-1, "index: expected 0 to 5, got -1"},
        {6, "index: expected 0 to 5, got 6"},
        {INT64_MAX, "index: expected 0 to 5, got 9223372036854775807"},
        {INT64_MIN, "index: expected 0 to 5, got -9223372036854775808"},
    };
    const char *name = "untouched";
    attn_tensor shape;
    refusal_fill(&shape, sizeof shape);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; ++i) {
        refusal_assert(
            "attn_mha_parameter_describe",
            attn_mha_parameter_describe(mha_refusal_layer.layer, outside[i].index, &name, &shape),
            ATTN_ERROR_VALUE, outside[i].line);
    }
    refusal_assert("attn_mha_parameter_describe",
                   attn_mha_parameter_describe(NULL, 0, &name, &shape), ATTN_ERROR_NULL,
                   "layer: expected a layer, got NULL");
    assert_string_equal(name, "untouched");
    refusal_assert_untouched("shape", &shape, sizeof shape);
    refusal_assert_ok("attn_mha_parameter_describe",
                      attn_mha_parameter_describe(mha_refusal_layer.layer, 0, NULL, NULL));
}

/* Functions a parameter entry is about; NO_DATA leaves the view without data. */
enum { LOAD = 1, BIND = 2, READ = 4, EVERY = LOAD | BIND | READ, NO_DATA = 8 };

/* Longer than any message; 64 characters a line. */
#define LONG_NAME                                                      \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___" \
    "a_name_that_is_longer_than_the_name_of_any_parameter_could_be___"

#define KNOWN_NAMES                                                                                \
    "name: expected one of this layer's parameters (q_proj_weight, k_proj_weight, v_proj_weight, " \
    "in_proj_bias, out_proj.weight, out_proj.bias), got "

/* A view that fits k_proj_weight. */
#define KEY_WEIGHT                                                                   \
    {                                                                                \
        .dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {8, 6}, .strides = { 6, 1 } \
    }

typedef struct parameter_refusal {
    const char *name;
    const char *parameter;
    attn_tensor values; /* rank 0 and no dtype: NULL is given instead */
    int functions;
    attn_status status;
    const char *line;
} parameter_refusal;

static const parameter_refusal refused_parameters[] = {
    {.name = "parameter_name_null_is_refused",
     .parameter = NULL,
     .values = KEY_WEIGHT,
     .functions = EVERY,
     .status = ATTN_ERROR_NULL,
     .line = "name: expected a parameter's name, got NULL"},
    {.name = "parameter_values_null_is_refused",
     .parameter = "k_proj_weight",
     .values = {0},
     .functions = EVERY,
     .status = ATTN_ERROR_NULL,
     .line = "k_proj_weight: expected a tensor, got NULL"},
    {.name = "parameter_data_null_is_refused",
     .parameter = "k_proj_weight",
     .values = KEY_WEIGHT,
     .functions = EVERY | NO_DATA,
     .status = ATTN_ERROR_NULL,
     .line = "k_proj_weight: expected data for shape (8, 6), got NULL"},
    {.name = "parameter_name_unknown_is_refused",
     .parameter = "k_proj.weight",
     .values = KEY_WEIGHT,
     .functions = EVERY,
     .status = ATTN_ERROR_PARAMETER,
     .line = KNOWN_NAMES "\"k_proj.weight\""},
    {.name = "parameter_name_empty_is_refused",
     .parameter = "",
     .values = KEY_WEIGHT,
     .functions = EVERY,
     .status = ATTN_ERROR_PARAMETER,
     .line = KNOWN_NAMES "\"\""},
    {.name = "parameter_name_of_packed_layer_is_refused",
     .parameter = "in_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {24, 8}, .strides = {6, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_PARAMETER,
     .line = KNOWN_NAMES "\"in_proj_weight\""},
    {.name = "parameter_name_of_bias_kv_is_refused",
     .parameter = "bias_k",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {8}, .strides = {1}},
     .functions = EVERY,
     .status = ATTN_ERROR_PARAMETER,
     .line = KNOWN_NAMES "\"bias_k\""},
    {.name = "parameter_name_of_two_lines_is_refused",
     .parameter = "out_proj\nbias",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {8}, .strides = {1}},
     .functions = EVERY,
     .status = ATTN_ERROR_PARAMETER,
     .line = "name: expected one of this layer's parameters (..."},
    {.name = "parameter_name_longer_than_a_line_is_refused",
     .parameter = LONG_NAME,
     .values = KEY_WEIGHT,
     .functions = EVERY,
     .status = ATTN_ERROR_PARAMETER,
     .line = KNOWN_NAMES "\"a_name_that_is_longer_than_the_name_of_any_parameter_could_be___\""},
    {.name = "parameter_rank_1_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {48}, .strides = {1}},
     .functions = EVERY,
     .status = ATTN_ERROR_SHAPE,
     .line = "k_proj_weight: expected shape (8, 6), got (48)"},
    {.name = "parameter_rank_3_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 3, .shape = {1, 8, 6}, .strides = {48, 6, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_SHAPE,
     .line = "k_proj_weight: expected shape (8, 6), got (1, 8, 6)"},
    {.name = "parameter_rank_9_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 9},
     .functions = EVERY,
     .status = ATTN_ERROR_VALUE,
     .line = "k_proj_weight: expected rank 0 to 8, got 9"},
    {.name = "parameter_transposed_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {6, 8}, .strides = {6, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_SHAPE,
     .line = "k_proj_weight: expected shape (8, 6), got (6, 8)"},
    {.name = "parameter_bias_of_two_projections_is_refused",
     .parameter = "in_proj_bias",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {16}, .strides = {1}},
     .functions = EVERY,
     .status = ATTN_ERROR_SHAPE,
     .line = "in_proj_bias: expected shape (24), got (16)"},
    {.name = "parameter_bias_as_row_is_refused",
     .parameter = "out_proj.bias",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {1, 8}, .strides = {6, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_SHAPE,
     .line = "out_proj.bias: expected shape (8), got (1, 8)"},
    {.name = "parameter_int64_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_INT64, .rank = 2, .shape = {8, 6}, .strides = {6, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_DTYPE,
     .line = "k_proj_weight: expected dtype float32, float64, bfloat16 or float16, got int64"},
    {.name = "parameter_bool_is_refused",
     .parameter = "out_proj.bias",
     .values = {.dtype = ATTN_DTYPE_BOOL, .rank = 1, .shape = {8}, .strides = {1}},
     .functions = EVERY,
     .status = ATTN_ERROR_DTYPE,
     .line = "out_proj.bias: expected dtype float32, float64, bfloat16 or float16, got bool"},
    {.name = "parameter_dtype_zero_is_refused",
     .parameter = "out_proj.bias",
     .values = {.dtype = 0, .rank = 1, .shape = {8}, .strides = {1}},
     .functions = EVERY,
     .status = ATTN_ERROR_DTYPE,
     .line = "out_proj.bias: expected a dtype of enum attn_dtype, got invalid"},
    {.name = "parameter_float64_into_float32_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT64, .rank = 2, .shape = {8, 6}, .strides = {6, 1}},
     .functions = BIND | READ,
     .status = ATTN_ERROR_DTYPE,
     .line = "k_proj_weight: expected dtype float32, got float64"},
    {.name = "parameter_length_negative_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {8, -6}, .strides = {6, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_VALUE,
     .line = "k_proj_weight: expected lengths of 0 and up, got -6 on axis 1"},
    {.name = "parameter_stride_beyond_int64_is_refused",
     .parameter = "k_proj_weight",
     .values =
         {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {8, 6}, .strides = {INT64_MAX / 8, 1}},
     .functions = EVERY,
     .status = ATTN_ERROR_OVERFLOW,
     .line = "k_proj_weight: shape (8, 6) with its strides exceeds 2^63 bytes"},
    {.name = "parameter_stride_0_is_refused",
     .parameter = "k_proj_weight",
     .values = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {8, 6}, .strides = {0, 1}},
     .functions = READ,
     .status = ATTN_ERROR_OVERLAP,
     .line =
         "k_proj_weight: expected strides that give every element its own memory, got 0 on axis 0"},
};

static void assert_parameter_refused(const parameter_refusal *entry, const attn_tensor *values) {
    attn_mha *layer = mha_refusal_layer.layer;
    if (entry->functions & LOAD) {
        refusal_assert("attn_mha_load_parameter",
                       attn_mha_load_parameter(NULL, layer, entry->parameter, values, NULL),
                       entry->status, entry->line);
    }
    if (entry->functions & BIND) {
        refusal_assert("attn_mha_bind_parameter",
                       attn_mha_bind_parameter(layer, entry->parameter, values), entry->status,
                       entry->line);
    }
    if (entry->functions & READ) {
        refusal_assert("attn_mha_read_parameter",
                       attn_mha_read_parameter(NULL, layer, entry->parameter, values),
                       entry->status, entry->line);
    }
}

static void test_parameter(void **state) {
    const parameter_refusal *entry = *state;
    double memory[24 * 8];
    refusal_fill(memory, sizeof memory);
    attn_tensor values = entry->values;
    values.data = (entry->functions & NO_DATA) ? NULL : memory;
    const bool given = values.rank != 0 || values.dtype != 0;
    assert_parameter_refused(entry, given ? &values : NULL);
    refusal_assert_untouched("values", memory, sizeof memory);
    mha_refusal_assert_usable();
}

static void parameter_functions_refuse_layer_null(void **state) {
    (void)state;
    static const char line[] = "layer: expected a layer, got NULL";
    mha_parameters parameters;
    const attn_tensor values = mha_parameters_view(&parameters, "out_proj.bias");
    refusal_fill(&parameters, sizeof parameters);
    refusal_assert("attn_mha_load_parameter",
                   attn_mha_load_parameter(NULL, NULL, "out_proj.bias", &values, NULL),
                   ATTN_ERROR_NULL, line);
    refusal_assert("attn_mha_bind_parameter",
                   attn_mha_bind_parameter(NULL, "out_proj.bias", &values), ATTN_ERROR_NULL, line);
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, NULL, "out_proj.bias", &values), ATTN_ERROR_NULL,
                   line);
    refusal_assert("attn_mha_init_parameters", attn_mha_init_parameters(NULL, NULL, NULL),
                   ATTN_ERROR_NULL, line);
    refusal_assert_untouched("values", &parameters, sizeof parameters);
}

static void parameter_not_set_cannot_be_read(void **state) {
    (void)state;
    const attn_mha_config config = mha_fixture_config();
    attn_mha *layer;
    mha_parameters parameters;
    refusal_assert_ok("attn_mha_create", attn_mha_create(mha_refusal_context, &config, &layer));
    const attn_tensor bias = mha_parameters_view(&parameters, "in_proj_bias");
    refusal_fill(&parameters, sizeof parameters);
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, layer, "in_proj_bias", &bias),
                   ATTN_ERROR_PARAMETER,
                   "in_proj_bias: expected a parameter that has been loaded or bound, got none");
    /* A third of a stacked parameter is not the parameter. */
    const int64_t third[] = {MHA_E};
    const attn_tensor query_bias =
        refusal_view(mha_refusal_layer.parameters.in_bias, ATTN_DTYPE_FLOAT32, 1, third);
    refusal_assert_ok("attn_mha_load_parameter",
                      attn_mha_load_parameter(NULL, layer, "q_proj_bias", &query_bias, NULL));
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, layer, "in_proj_bias", &bias),
                   ATTN_ERROR_PARAMETER,
                   "in_proj_bias: expected a parameter that has been loaded or bound, got none");
    refusal_assert_untouched("values", &parameters, sizeof parameters);
    attn_mha_destroy(layer);
}

/* Reading a bound parameter into the very memory it is bound to. */
static void read_into_bound_memory_is_refused(void **state) {
    (void)state;
    const attn_tensor values =
        mha_parameters_view(&mha_refusal_layer.parameters, "out_proj.weight");
    refusal_assert(
        "attn_mha_read_parameter",
        attn_mha_read_parameter(NULL, mha_refusal_layer.layer, "out_proj.weight", &values),
        ATTN_ERROR_OVERLAP,
        "out_proj.weight: expected memory of its own, got memory that overlaps ...");
    mha_refusal_assert_usable();
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(parameter_count_refuses_null),
    cmocka_unit_test(parameter_describe_refuses_index_outside),
    cmocka_unit_test(parameter_functions_refuse_layer_null),
    cmocka_unit_test(parameter_not_set_cannot_be_read),
    cmocka_unit_test(read_into_bound_memory_is_refused),
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused_parameters / sizeof refused_parameters[0]; ++i) {
        refusal_suite_add(&suite, refused_parameters[i].name, test_parameter,
                          &refused_parameters[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return mha_refusal_main(&suite, "errors of layers' parameters");
}
