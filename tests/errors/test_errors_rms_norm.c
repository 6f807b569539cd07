/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_rms_norm.c: what attn_rms_norm says of every argument it refuses.
 */
#include <math.h>
#include <string.h>

#include "rope_fixture.h"

typedef struct norm_refusal {
    const char *name;
    refusal_spoil spoil;         /* an option's view that is spoilt is also linked */
    attn_rms_norm_params params; /* the options; struct_size 0: today's */
    int links[2];                /* numbers of further options to link; 0: none */
    attn_status status;
    const char *line;
} norm_refusal;

static attn_context *test_context;

static void assert_usable(void) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, test_context);
    refusal_assert_ok("attn_rms_norm", rope_fixture_normalize(&fixture));
    rope_fixture_assert_normalized(&fixture);
}

static void apply(const norm_refusal *entry, rope_fixture *fixture) {
    fixture->norm_options = entry->params;
    if (entry->params.struct_size == 0) {
        fixture->norm_options.struct_size = sizeof fixture->norm_options;
    }
    for (int i = 0; i < 2 && entry->links[i] != 0; ++i) {
        rope_fixture_link(fixture, entry->links[i]);
    }
    refusal_spoil_view(fixture->views, &entry->spoil);
    if (entry->spoil.fault == REFUSAL_NO_TENSOR) {
        fixture->arguments[entry->spoil.tensor] = NULL;
    } else if (entry->spoil.fault != REFUSAL_NO_FAULT && entry->spoil.tensor >= ROPE_ARGUMENTS) {
        rope_fixture_link(fixture, entry->spoil.tensor);
    }
}

static void test_refusal(void **state) {
    const norm_refusal *entry = *state;
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, test_context);
    apply(entry, &fixture);
    rope_memory before;
    memcpy(&before, &fixture.memory, sizeof before);
    refusal_assert("attn_rms_norm", rope_fixture_normalize(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_usable();
}

static const norm_refusal refused[] = {
    {.name = "input_null_is_refused",
     .spoil = {REFUSAL_NO_TENSOR, .tensor = ROPE_INPUT},
     .status = ATTN_ERROR_NULL,
     .line = "input: expected a tensor, got NULL"},
    {.name = "output_null_is_refused",
     .spoil = {REFUSAL_NO_TENSOR, .tensor = ROPE_OUTPUT},
     .status = ATTN_ERROR_NULL,
     .line = "output: expected a tensor, got NULL"},
    {.name = "input_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_INPUT},
     .status = ATTN_ERROR_NULL,
     .line = "input: expected data for shape (2, 2, 3, 6), got NULL"},
    {.name = "output_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_OUTPUT},
     .status = ATTN_ERROR_NULL,
     .line = "output: expected data for shape (2, 2, 3, 6), got NULL"},
    {.name = "input_int64_is_refused",
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_INPUT, .value = ATTN_DTYPE_INT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "input: expected dtype float32, float64, bfloat16 or float16, got int64"},
    {.name = "input_dtype_unknown_is_refused",
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_INPUT, .value = 99},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "input: expected a dtype of enum attn_dtype, got 99, unknown to this version"},
    {.name = "output_float64_is_refused",
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_OUTPUT, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "output: expected dtype float32, got float64"},
    {.name = "output_bfloat16_of_float32_is_refused",
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_OUTPUT, .value = ATTN_DTYPE_BFLOAT16},
     .status = ATTN_ERROR_DTYPE,
     .line = "output: expected dtype float32, got bfloat16"},
    {.name = "input_rank_too_low_is_refused",
     .spoil = {REFUSAL_RANK, .tensor = ROPE_INPUT, .value = 0},
     .status = ATTN_ERROR_SHAPE,
     .line = "input: expected rank 1 to 8, got 0"},
    {.name = "input_rank_9_is_refused",
     .spoil = {REFUSAL_RANK, .tensor = ROPE_INPUT, .value = 9},
     .status = ATTN_ERROR_VALUE,
     .line = "input: expected rank 0 to 8, got 9"},
    {.name = "input_length_negative_is_refused",
     .spoil = {REFUSAL_LENGTH, .tensor = ROPE_INPUT, .axis = 0, .value = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "input: expected lengths of 0 and up, got -1 on axis 0"},
    {.name = "output_stride_beyond_int64_is_refused",
     .spoil = {REFUSAL_STRIDE, .tensor = ROPE_OUTPUT, .axis = 0, .value = INT64_MAX},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "output: shape (2, 2, 3, 6) with its strides exceeds 2^63 bytes"},
    {.name = "output_stride_0_is_refused",
     .spoil = {REFUSAL_STRIDE, .tensor = ROPE_OUTPUT, .axis = 1, .value = 0},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got "
             "0 on axis 1"},
    {.name = "output_on_next_element_of_input_is_refused",
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_OUTPUT, .other = ROPE_INPUT, .value = 4},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps input"},
    {.name = "weight_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_WEIGHT},
     .status = ATTN_ERROR_NULL,
     .line = "weight: expected data for shape (6), got NULL"},
    {.name = "output_features_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, .tensor = ROPE_OUTPUT, .axis = 3, .value = 5},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected shape (2, 2, 3, E=6), got (2, 2, 3, 5)"},
    {.name = "epsilon_negative_is_refused",
     .params = {.epsilon = -1e-6},
     .status = ATTN_ERROR_VALUE,
     .line = "epsilon: expected 0 (the default) or a positive number, got -1e-06"},
    {.name = "epsilon_infinite_is_refused",
     .params = {.epsilon = INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "epsilon: expected 0 (the default) or a positive number, got inf"},
    {.name = "epsilon_nan_is_refused",
     .params = {.epsilon = NAN},
     .status = ATTN_ERROR_VALUE,
     .line = "epsilon: expected 0 (the default) or a positive number, got nan"},
    {.name = "weight_offset_infinite_is_refused",
     .params = {.weight_offset = INFINITY},
     .links = {ROPE_WEIGHT},
     .status = ATTN_ERROR_VALUE,
     .line = "weight_offset: expected a finite number, got inf"},
    {.name = "weight_offset_nan_is_refused",
     .params = {.weight_offset = NAN},
     .links = {ROPE_WEIGHT},
     .status = ATTN_ERROR_VALUE,
     .line = "weight_offset: expected a finite number, got nan"},
    {.name = "weight_offset_without_weight_is_refused",
     .params = {.weight_offset = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "weight_offset: expected 0 without weight, got 1"},
    {.name = "weight_float64_beside_float32_is_refused",
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_WEIGHT, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "weight: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "weight_bool_is_refused",
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_WEIGHT, .value = ATTN_DTYPE_BOOL},
     .status = ATTN_ERROR_DTYPE,
     .line = "weight: expected dtype float32, bfloat16 or float16, got bool"},
    {.name = "weight_features_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, .tensor = ROPE_WEIGHT, .axis = 0, .value = 5},
     .status = ATTN_ERROR_SHAPE,
     .line = "weight: expected a shape that broadcasts to (2, 2, 3, E=6), got (5)"},
    {.name = "weight_rank_5_is_refused",
     .spoil = {REFUSAL_RANK, .tensor = ROPE_WEIGHT, .value = 5},
     .status = ATTN_ERROR_SHAPE,
     .line = "weight: expected a shape that broadcasts to (2, 2, 3, E=6), got (1, "
             "1, 1, 1, 6)"},
    {.name = "output_on_weight_is_refused",
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_WEIGHT, .other = ROPE_OUTPUT},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps weight"},
};

/* The one overlap that is allowed: the very same view. */
static void output_that_is_input_is_accepted(void **state) {
    (void)state;
    rope_fixture separate, fixture;
    rope_fixture_prepare(&separate, test_context);
    refusal_assert_ok("attn_rms_norm", rope_fixture_normalize(&separate));
    rope_fixture_assert_normalized(&separate);
    rope_fixture_prepare(&fixture, test_context);
    fixture.arguments[ROPE_OUTPUT] = &fixture.views[ROPE_INPUT];
    refusal_assert_ok("attn_rms_norm", rope_fixture_normalize(&fixture));
    assert_memory_equal(fixture.memory.input, separate.memory.output,
                        sizeof separate.memory.output);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(output_that_is_input_is_accepted),
};

int main(void) {
    static refusal_suite suite;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
    if (attn_context_create(&config, &test_context) != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        return 1;
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_refusal, &refused[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    const int failures = refusal_suite_run(&suite, "errors of attn_rms_norm");
    attn_context_destroy(test_context);
    return failures;
}
