/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_rope.c: what attn_rope says of every argument it refuses.
 */
#include <math.h>
#include <string.h>

#include "rope_fixture.h"

typedef struct rope_refusal {
    const char *name;
    refusal_spoil spoil;     /* an option's view that is spoilt is also linked */
    attn_rope_params params; /* the options; struct_size 0: today's */
    int links[2];            /* numbers of further options to link; 0: none */
    attn_status status;
    const char *line;
} rope_refusal;

static attn_context *test_context;

static void assert_usable(void) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, test_context);
    refusal_assert_ok("attn_rope", rope_fixture_run(&fixture));
    rope_fixture_assert_values(&fixture);
}

static void apply(const rope_refusal *entry, rope_fixture *fixture) {
    fixture->options = entry->params;
    if (entry->params.struct_size == 0) {
        fixture->options.struct_size = sizeof fixture->options;
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
    const rope_refusal *entry = *state;
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, test_context);
    apply(entry, &fixture);
    rope_memory before;
    memcpy(&before, &fixture.memory, sizeof before);
    refusal_assert("attn_rope", rope_fixture_run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_usable();
}

static const rope_refusal refused[] = {
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
     .spoil = {REFUSAL_RANK, .tensor = ROPE_INPUT, .value = 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "input: expected rank 2 to 8, got 1"},
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
    {.name = "frequencies_data_null_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_FREQUENCIES},
     .status = ATTN_ERROR_NULL,
     .line = "frequencies: expected data for shape (2), got NULL"},
    {.name = "positions_data_null_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_POSITIONS},
     .status = ATTN_ERROR_NULL,
     .line = "positions: expected data for shape (2, 3), got NULL"},
    {.name = "lengths_data_null_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_LENGTHS},
     .status = ATTN_ERROR_NULL,
     .line = "lengths: expected data for shape (2), got NULL"},
    {.name = "cos_data_null_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_COS},
     .links = {ROPE_SIN},
     .status = ATTN_ERROR_NULL,
     .line = "cos: expected data for shape (5, 2), got NULL"},
    {.name = "sin_data_null_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_NO_DATA, .tensor = ROPE_SIN},
     .links = {ROPE_COS},
     .status = ATTN_ERROR_NULL,
     .line = "sin: expected data for shape (5, 2), got NULL"},
    {.name = "cos_without_sin_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .links = {ROPE_COS},
     .status = ATTN_ERROR_NULL,
     .line = "sin: expected a tensor beside cos, got NULL"},
    {.name = "sin_without_cos_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .links = {ROPE_SIN},
     .status = ATTN_ERROR_NULL,
     .line = "cos: expected a tensor beside sin, got NULL"},
    {.name = "output_rows_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, .tensor = ROPE_OUTPUT, .axis = 2, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected shape (2, 2, L=3, E=6), got (2, 2, 2, 6)"},
    {.name = "rotary_dim_odd_is_refused",
     .params = {.rotary_dim = 3},
     .status = ATTN_ERROR_VALUE,
     .line = "rotary_dim: expected an even number, 0 to E=6, got 3"},
    {.name = "rotary_dim_negative_is_refused",
     .params = {.rotary_dim = -2},
     .status = ATTN_ERROR_VALUE,
     .line = "rotary_dim: expected an even number, 0 to E=6, got -2"},
    {.name = "rotary_dim_beyond_features_is_refused",
     .params = {.rotary_dim = 8},
     .status = ATTN_ERROR_VALUE,
     .line = "rotary_dim: expected an even number, 0 to E=6, got 8"},
    {.name = "base_negative_is_refused",
     .params = {.base = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "base: expected 0 (10000) or a positive number, got -1"},
    {.name = "base_infinite_is_refused",
     .params = {.base = INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "base: expected 0 (10000) or a positive number, got inf"},
    {.name = "base_nan_is_refused",
     .params = {.base = NAN},
     .status = ATTN_ERROR_VALUE,
     .line = "base: expected 0 (10000) or a positive number, got nan"},
    {.name = "magnitude_infinite_is_refused",
     .params = {.magnitude = -INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "magnitude: expected 0 (1) or a finite number, got -inf"},
    {.name = "magnitude_nan_is_refused",
     .params = {.magnitude = NAN},
     .status = ATTN_ERROR_VALUE,
     .line = "magnitude: expected 0 (1) or a finite number, got nan"},
    {.name = "interleaved_2_is_refused",
     .params = {.interleaved = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "interleaved: expected 0 or 1, got 2"},
    {.name = "interleaved_negative_is_refused",
     .params = {.interleaved = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "interleaved: expected 0 or 1, got -1"},
    {.name = "inverse_2_is_refused",
     .params = {.inverse = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "inverse: expected 0 or 1, got 2"},
    {.name = "inverse_negative_is_refused",
     .params = {.inverse = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "inverse: expected 0 or 1, got -1"},
    {.name = "base_beside_frequencies_is_refused",
     .params = {.rotary_dim = ROPE_DIM, .base = 500},
     .links = {ROPE_FREQUENCIES},
     .status = ATTN_ERROR_VALUE,
     .line = "base: expected 0 beside frequencies, got 500"},
    {.name = "base_beside_tables_is_refused",
     .params = {.rotary_dim = ROPE_DIM, .base = 500},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "base: expected 0 beside cos and sin, got 500"},
    {.name = "frequencies_beside_tables_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_STRIDE, .tensor = ROPE_FREQUENCIES, .axis = 0, .value = 1},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "frequencies: expected NULL beside cos and sin"},
    {.name = "lengths_beside_positions_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .links = {ROPE_POSITIONS, ROPE_LENGTHS},
     .status = ATTN_ERROR_VALUE,
     .line = "lengths: expected NULL beside positions"},
    {.name = "frequencies_int64_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_FREQUENCIES, .value = ATTN_DTYPE_INT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "frequencies: expected dtype float32, float64, bfloat16 or float16, "
             "got int64"},
    {.name = "cos_float64_beside_float32_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_COS, .value = ATTN_DTYPE_FLOAT64},
     .links = {ROPE_SIN},
     .status = ATTN_ERROR_DTYPE,
     .line = "cos: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "sin_int64_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_SIN, .value = ATTN_DTYPE_INT64},
     .links = {ROPE_COS},
     .status = ATTN_ERROR_DTYPE,
     .line = "sin: expected dtype float32, bfloat16 or float16, got int64"},
    {.name = "positions_float32_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_POSITIONS, .value = ATTN_DTYPE_FLOAT32},
     .status = ATTN_ERROR_DTYPE,
     .line = "positions: expected dtype int64 or int32, got float32"},
    {.name = "lengths_bool_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_DTYPE, .tensor = ROPE_LENGTHS, .value = ATTN_DTYPE_BOOL},
     .status = ATTN_ERROR_DTYPE,
     .line = "lengths: expected dtype int64 or int32, got bool"},
    {.name = "frequencies_of_all_features_is_refused",
     .params = {.rotary_dim = 0},
     .links = {ROPE_FREQUENCIES},
     .status = ATTN_ERROR_SHAPE,
     .line = "frequencies: expected shape (R/2=3), got (2)"},
    {.name = "frequencies_rank_2_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_RANK, .tensor = ROPE_FREQUENCIES, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "frequencies: expected shape (R/2=2), got (1, 2)"},
    {.name = "tables_of_other_rows_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_SHAPE,
     .line = "cos: expected a shape that broadcasts to (2, L=3, R/2=2), got (5, 2)"},
    {.name = "sin_of_other_rows_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_LENGTH, .tensor = ROPE_SIN, .axis = 0, .value = 4},
     .links = {ROPE_COS, ROPE_POSITIONS},
     .status = ATTN_ERROR_SHAPE,
     .line = "sin: expected shape (P=5, R/2=2), got (4, 2)"},
    {.name = "cos_rank_3_looked_up_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_RANK, .tensor = ROPE_COS, .value = 3},
     .links = {ROPE_SIN, ROPE_LENGTHS},
     .status = ATTN_ERROR_SHAPE,
     .line = "cos: expected shape (P, R/2=2), got (1, 5, 2)"},
    {.name = "positions_of_other_rows_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_LENGTH, .tensor = ROPE_POSITIONS, .axis = 1, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "positions: expected a shape that broadcasts to (2, L=3), got (2, 2)"},
    {.name = "positions_per_head_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_RANK, .tensor = ROPE_POSITIONS, .value = 3},
     .status = ATTN_ERROR_SHAPE,
     .line = "positions: expected a shape that broadcasts to (2, L=3), got (1, 2, 3)"},
    {.name = "lengths_of_other_batches_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_RANK, .tensor = ROPE_LENGTHS, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "lengths: expected a shape that broadcasts to (2), got (1, 2)"},
    {.name = "length_negative_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_ELEMENT, .tensor = ROPE_LENGTHS, .value = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "lengths: expected 0 to 9223372036854775807, got -1 at element 0"},
    {.name = "length_too_short_for_tables_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_ELEMENT, .tensor = ROPE_LENGTHS, .value = ROPE_ROWS - 1},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "lengths: expected 3 to 5, got 2 at element 0"},
    {.name = "length_past_tables_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_ELEMENT, .tensor = ROPE_LENGTHS, .value = ROPE_PLACES + 1},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "lengths: expected 3 to 5, got 6 at element 0"},
    {.name = "position_negative_of_tables_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_ELEMENT, .tensor = ROPE_POSITIONS, .value = -1},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "positions: expected 0 to 4, got -1 at element 0"},
    {.name = "position_past_tables_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_ELEMENT, .tensor = ROPE_POSITIONS, .value = ROPE_PLACES},
     .links = {ROPE_COS, ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "positions: expected 0 to 4, got 5 at element 0"},
    {.name = "output_on_frequencies_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_FREQUENCIES, .other = ROPE_OUTPUT},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps frequencies"},
    {.name = "output_on_cos_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_COS, .other = ROPE_OUTPUT},
     .links = {ROPE_SIN, ROPE_LENGTHS},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps cos"},
    {.name = "output_on_sin_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_SIN, .other = ROPE_OUTPUT},
     .links = {ROPE_COS, ROPE_LENGTHS},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps sin"},
    {.name = "output_on_positions_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_POSITIONS, .other = ROPE_OUTPUT},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps positions"},
    {.name = "output_on_lengths_is_refused",
     .params = {.rotary_dim = ROPE_DIM},
     .spoil = {REFUSAL_MEMORY, .tensor = ROPE_LENGTHS, .other = ROPE_OUTPUT},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps lengths"},
};

/* All of E is rotated without rotary_dim, so it must be even. */
static void features_odd_without_rotary_dim_are_refused(void **state) {
    (void)state;
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, test_context);
    fixture.views[ROPE_INPUT].shape[3] = ROPE_FEATURES - 1;
    fixture.views[ROPE_OUTPUT].shape[3] = ROPE_FEATURES - 1;
    fixture.params = NULL;
    refusal_assert("attn_rope", rope_fixture_run(&fixture), ATTN_ERROR_SHAPE,
                   "input: expected an even number of features E without rotary_dim, got 5");
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    fixture.params = &fixture.options;
    refusal_assert_ok("attn_rope", rope_fixture_run(&fixture));
}

/* The last position is not the first to be wrong: nothing is written before all were seen. */
static void position_wrong_in_the_last_row_leaves_the_output(void **state) {
    (void)state;
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, test_context);
    int32_t positions[2 * ROPE_BATCHES * ROPE_ROWS] = {0}; /* every second one is nobody's */
    attn_tensor *view = &fixture.views[ROPE_POSITIONS];
    view->dtype = ATTN_DTYPE_INT32;
    view->data = positions;
    view->strides[0] = 2 * ROPE_ROWS;
    view->strides[1] = 2;
    rope_fixture_link(&fixture, ROPE_POSITIONS);
    rope_fixture_link(&fixture, ROPE_COS);
    rope_fixture_link(&fixture, ROPE_SIN);
    positions[1] = INT32_MAX;
    refusal_assert_ok("attn_rope", rope_fixture_run(&fixture));
    refusal_fill(fixture.memory.output, sizeof fixture.memory.output);
    positions[2 * (ROPE_BATCHES * ROPE_ROWS - 1)] = INT32_MIN;
    refusal_assert("attn_rope", rope_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   "positions: expected 0 to 4, got -2147483648 at element 5");
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
}

/* The one overlap that is allowed: the very same view. */
static void output_that_is_input_is_accepted(void **state) {
    (void)state;
    rope_fixture separate, fixture;
    rope_fixture_prepare(&separate, test_context);
    refusal_assert_ok("attn_rope", rope_fixture_run(&separate));
    rope_fixture_assert_values(&separate);
    rope_fixture_prepare(&fixture, test_context);
    fixture.arguments[ROPE_OUTPUT] = &fixture.views[ROPE_INPUT];
    refusal_assert_ok("attn_rope", rope_fixture_run(&fixture));
    assert_memory_equal(fixture.memory.input, separate.memory.output,
                        sizeof separate.memory.output);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(features_odd_without_rotary_dim_are_refused),
    cmocka_unit_test(position_wrong_in_the_last_row_leaves_the_output),
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
    const int failures = refusal_suite_run(&suite, "errors of attn_rope");
    attn_context_destroy(test_context);
    return failures;
}
