/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_softmax.c: what attn_softmax and attn_softmax_workspace_bytes say of every argument
 * they refuse.
 */
#include <stdio.h>
#include <string.h>

#include "softmax_fixture.h"

typedef struct softmax_refusal {
    const char *name;
    refusal_spoil spoil;        /* an option's view that is spoilt is also linked */
    attn_softmax_params params; /* the options; struct_size 0: today's */
    int link;                   /* number of a further option to link; 0: none */
    bool
        call_only; /* about memory or values, which workspace_bytes does not look at: it succeeds */
    attn_status status;
    const char *line;
} softmax_refusal;

static attn_context *test_context;

static void assert_usable(void) {
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, test_context);
    refusal_assert_ok("attn_softmax", softmax_fixture_run(&fixture));
    softmax_fixture_assert_values(&fixture);
}

static void apply(const softmax_refusal *entry, softmax_fixture *fixture) {
    fixture->options = entry->params;
    if (entry->params.struct_size == 0) {
        fixture->options.struct_size = sizeof fixture->options;
    }
    if (entry->link != 0) {
        softmax_fixture_link(fixture, entry->link);
    }
    refusal_spoil_view(fixture->views, &entry->spoil);
    if (entry->spoil.fault == REFUSAL_NO_TENSOR) {
        fixture->arguments[entry->spoil.tensor] = NULL;
    } else if (entry->spoil.fault != REFUSAL_NO_FAULT && entry->spoil.tensor >= SOFTMAX_ARGUMENTS) {
        softmax_fixture_link(fixture, entry->spoil.tensor);
    }
}

static void test_refusal(void **state) {
    const softmax_refusal *entry = *state;
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, test_context);
    apply(entry, &fixture);
    softmax_memory before;
    memcpy(&before, &fixture.memory, sizeof before);
    refusal_assert("attn_softmax", softmax_fixture_run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    size_t bytes = 77;
    const attn_status status = softmax_fixture_workspace_bytes(&fixture, &bytes);
    if (entry->call_only) {
        refusal_assert_ok("attn_softmax_workspace_bytes", status);
    } else {
        refusal_assert("attn_softmax_workspace_bytes", status, entry->status, entry->line);
        assert_int_equal(bytes, 77);
    }
    assert_usable();
}

static const softmax_refusal refused[] = {
    {.name = "input_null_is_refused",
     .spoil = {REFUSAL_NO_TENSOR, .tensor = SOFTMAX_INPUT},
     .status = ATTN_ERROR_NULL,
     .line = "input: expected a tensor, got NULL"},
    {.name = "output_null_is_refused",
     .spoil = {REFUSAL_NO_TENSOR, .tensor = SOFTMAX_OUTPUT},
     .status = ATTN_ERROR_NULL,
     .line = "output: expected a tensor, got NULL"},
    {.name = "input_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = SOFTMAX_INPUT},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "input: expected data for shape (4, 6), got NULL"},
    {.name = "output_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = SOFTMAX_OUTPUT},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "output: expected data for shape (4, 6), got NULL"},
    {.name = "mask_data_null_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .spoil = {REFUSAL_NO_DATA, .tensor = SOFTMAX_MASK},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "mask: expected data for shape (6), got NULL"},
    {.name = "lengths_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = SOFTMAX_LENGTHS},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "lengths: expected data for shape (4), got NULL"},
    {.name = "lse_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = SOFTMAX_LSE},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "lse: expected data for shape (4), got NULL"},
    {.name = "input_int64_is_refused",
     .spoil = {REFUSAL_DTYPE, SOFTMAX_INPUT, .value = ATTN_DTYPE_INT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "input: expected dtype float32, float64, bfloat16 or float16, got int64"},
    {.name = "input_dtype_unknown_is_refused",
     .spoil = {REFUSAL_DTYPE, SOFTMAX_INPUT, .value = 99},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "input: expected a dtype of enum attn_dtype, got 99, unknown to this version"},
    {.name = "output_float64_is_refused",
     .spoil = {REFUSAL_DTYPE, SOFTMAX_OUTPUT, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "output: expected dtype float32, got float64"},
    {.name = "mask_additive_float64_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .spoil = {REFUSAL_DTYPE, SOFTMAX_MASK, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "mask: expected dtype float32, got float64"},
    {.name = "mask_additive_bool_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .link = SOFTMAX_BOOL_MASK,
     .status = ATTN_ERROR_DTYPE,
     .line = "mask: expected dtype float32, got bool"},
    {.name = "mask_include_float32_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_INCLUDE},
     .link = SOFTMAX_MASK,
     .status = ATTN_ERROR_DTYPE,
     .line = "mask: expected dtype bool, got float32"},
    {.name = "mask_exclude_float32_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .link = SOFTMAX_MASK,
     .status = ATTN_ERROR_DTYPE,
     .line = "mask: expected dtype bool, got float32"},
    {.name = "lengths_float32_is_refused",
     .spoil = {REFUSAL_DTYPE, SOFTMAX_LENGTHS, .value = ATTN_DTYPE_FLOAT32},
     .status = ATTN_ERROR_DTYPE,
     .line = "lengths: expected dtype int64 or int32, got float32"},
    {.name = "lse_float64_is_refused",
     .spoil = {REFUSAL_DTYPE, SOFTMAX_LSE, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "lse: expected dtype float32, got float64"},
    {.name = "input_rank_0_is_refused",
     .spoil = {REFUSAL_RANK, SOFTMAX_INPUT, .value = 0},
     .status = ATTN_ERROR_SHAPE,
     .line = "input: expected rank 1 to 8, got 0"},
    {.name = "input_rank_9_is_refused",
     .spoil = {REFUSAL_RANK, SOFTMAX_INPUT, .value = 9},
     .status = ATTN_ERROR_VALUE,
     .line = "input: expected rank 0 to 8, got 9"},
    {.name = "output_rank_1_is_refused",
     .spoil = {REFUSAL_RANK, SOFTMAX_OUTPUT, .value = 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected shape (4, S=6), got (6)"},
    {.name = "output_cols_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, SOFTMAX_OUTPUT, .axis = 1, .value = SOFTMAX_COLS - 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected shape (4, S=6), got (4, 5)"},
    {.name = "input_length_negative_is_refused",
     .spoil = {REFUSAL_LENGTH, SOFTMAX_INPUT, .axis = 0, .value = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "input: expected lengths of 0 and up, got -1 on axis 0"},
    {.name = "input_bytes_beyond_int64_is_refused",
     .spoil = {REFUSAL_LENGTH, SOFTMAX_INPUT, .axis = 0, .value = INT64_MAX / 8},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "input: shape (1152921504606846975, 6) with its strides exceeds 2^63 bytes"},
    {.name = "output_stride_beyond_int64_is_refused",
     .spoil = {REFUSAL_STRIDE, SOFTMAX_OUTPUT, .axis = 0, .value = INT64_MAX},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "output: shape (4, 6) with its strides exceeds 2^63 bytes"},
    {.name = "mask_rank_0_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .spoil = {REFUSAL_RANK, SOFTMAX_MASK, .value = 0},
     .status = ATTN_ERROR_SHAPE,
     .line = "mask: expected rank 1 to 8, got 0"},
    {.name = "mask_rank_3_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .spoil = {REFUSAL_RANK, SOFTMAX_BOOL_MASK, .value = 3},
     .status = ATTN_ERROR_SHAPE,
     .line = "mask: expected a shape that broadcasts to (4, S=6), got (1, 4, 6)"},
    {.name = "mask_cols_differ_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .spoil = {REFUSAL_LENGTH, SOFTMAX_MASK, .axis = 0, .value = SOFTMAX_COLS - 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "mask: expected a shape that broadcasts to (4, S=6), got (5)"},
    {.name = "mask_rows_differ_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_INCLUDE},
     .spoil = {REFUSAL_LENGTH, SOFTMAX_BOOL_MASK, .axis = 0, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "mask: expected a shape that broadcasts to (4, S=6), got (2, 6)"},
    {.name = "lengths_rows_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, SOFTMAX_LENGTHS, .axis = 0, .value = 3},
     .status = ATTN_ERROR_SHAPE,
     .line = "lengths: expected a shape that broadcasts to (4), got (3)"},
    {.name = "lengths_rank_2_is_refused",
     .spoil = {REFUSAL_RANK, SOFTMAX_LENGTHS, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "lengths: expected a shape that broadcasts to (4), got (1, 4)"},
    {.name = "lse_rows_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, SOFTMAX_LSE, .axis = 0, .value = 3},
     .status = ATTN_ERROR_SHAPE,
     .line = "lse: expected shape (4), got (3)"},
    {.name = "lse_rank_2_is_refused",
     .spoil = {REFUSAL_RANK, SOFTMAX_LSE, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "lse: expected shape (4), got (1, 4)"},
    {.name = "reserved_set_is_refused",
     .params = {.reserved = 1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "reserved: expected 0 in this version, got 1"},
    {.name = "mask_without_kind_is_refused",
     .link = SOFTMAX_MASK,
     .status = ATTN_ERROR_VALUE,
     .line = "mask_kind: expected ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE or "
             "ATTN_MASK_BOOL_EXCLUDE with a "
             "mask, got 0"},
    {.name = "mask_kind_without_mask_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .status = ATTN_ERROR_VALUE,
     .line = "mask_kind: expected ATTN_MASK_NONE without a mask, got 1"},
    {.name = "mask_kind_unknown_is_refused",
     .params = {.mask_kind = 4},
     .link = SOFTMAX_MASK,
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got 4"},
    {.name = "mask_kind_negative_is_refused",
     .params = {.mask_kind = -1},
     .link = SOFTMAX_MASK,
     .status = ATTN_ERROR_VALUE,
     .line = "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got -1"},
    {.name = "length_negative_is_refused",
     .spoil = {REFUSAL_ELEMENT, SOFTMAX_LENGTHS, .value = -1},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "lengths: expected 0 to S=6, got -1 at element 0"},
    {.name = "length_past_end_is_refused",
     .spoil = {REFUSAL_ELEMENT, SOFTMAX_LENGTHS, .value = SOFTMAX_COLS + 1},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "lengths: expected 0 to S=6, got 7 at element 0"},
    {.name = "output_on_next_element_of_input_is_refused",
     .spoil = {REFUSAL_MEMORY, SOFTMAX_OUTPUT, .other = SOFTMAX_INPUT, .value = 4},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps input"},
    {.name = "output_on_mask_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .spoil = {REFUSAL_MEMORY, SOFTMAX_MASK, .other = SOFTMAX_OUTPUT},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps mask"},
    {.name = "output_on_lengths_is_refused",
     .spoil = {REFUSAL_MEMORY, SOFTMAX_LENGTHS, .other = SOFTMAX_OUTPUT},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps lengths"},
    {.name = "lse_on_output_is_refused",
     .spoil = {REFUSAL_MEMORY, SOFTMAX_LSE, .other = SOFTMAX_OUTPUT, .value = 8},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps output"},
    {.name = "lse_on_input_is_refused",
     .spoil = {REFUSAL_MEMORY, SOFTMAX_LSE, .other = SOFTMAX_INPUT},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps input"},
    {.name = "output_stride_0_is_refused",
     .spoil = {REFUSAL_STRIDE, SOFTMAX_OUTPUT, .axis = 0, .value = 0},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 0 on axis 0"},
    {.name = "output_rows_that_meet_is_refused",
     .spoil = {REFUSAL_STRIDE, SOFTMAX_OUTPUT, .axis = 0, .value = SOFTMAX_COLS - 1},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 5 on axis 0"},
    {.name = "lse_stride_0_is_refused",
     .spoil = {REFUSAL_STRIDE, SOFTMAX_LSE, .axis = 0, .value = 0},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected strides that give every element its own memory, got 0 on axis 0"},
};

/* Lengths of 4 bytes, every second of which is nobody's and out of range. */
static void lengths_of_int32_count_and_are_refused_out_of_range(void **state) {
    (void)state;
    const int32_t wrong[] = {-1, SOFTMAX_COLS + 1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i <= sizeof wrong / sizeof wrong[0]; ++i) {
        int32_t lengths[2 * SOFTMAX_ROWS];
        const bool is_valid = i == sizeof wrong / sizeof wrong[0];
        for (int row = 0; row < SOFTMAX_ROWS; ++row) {
            lengths[2 * row] = row + 1;
            lengths[2 * row + 1] = -5;
        }
        lengths[4] = is_valid ? lengths[4] : wrong[i];
        softmax_fixture fixture;
        softmax_fixture_prepare(&fixture, test_context);
        attn_tensor *view = &fixture.views[SOFTMAX_LENGTHS];
        view->data = lengths;
        view->dtype = ATTN_DTYPE_INT32;
        view->strides[0] = 2;
        softmax_fixture_link(&fixture, SOFTMAX_LENGTHS);
        if (is_valid) {
            refusal_assert_ok("attn_softmax", softmax_fixture_run(&fixture));
            for (int j = 0; j < SOFTMAX_ROWS * SOFTMAX_COLS; ++j) {
                const bool is_hidden = j % SOFTMAX_COLS > j / SOFTMAX_COLS;
                assert_int_equal(fixture.memory.output[j] == 0, is_hidden);
            }
        } else {
            char line[128];
            snprintf(line, sizeof line, "lengths: expected 0 to S=6, got %d at element 2",
                     (int)wrong[i]);
            refusal_assert("attn_softmax", softmax_fixture_run(&fixture), ATTN_ERROR_VALUE, line);
            refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
        }
    }
}

/* A strided output needs a workspace: one of the size asked for works at any alignment, one byte
 * less is refused. */
static void workspace_one_byte_short_is_refused(void **state) {
    (void)state;
    static char memory[1 << 14];
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, test_context);
    softmax_fixture_spread_output(&fixture);
    size_t bytes;
    refusal_assert_ok("attn_softmax_workspace_bytes",
                      softmax_fixture_workspace_bytes(&fixture, &bytes));
    assert_in_range(bytes, 1, sizeof memory - 1);
    char line[128];
    snprintf(line, sizeof line, "workspace_bytes: expected at least %zu for this call, got %zu",
             bytes, bytes - 1);
    refusal_fill(memory, sizeof memory);
    fixture.workspace = memory + 1;
    fixture.workspace_bytes = bytes - 1;
    refusal_assert("attn_softmax", softmax_fixture_run(&fixture), ATTN_ERROR_WORKSPACE, line);
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    refusal_assert_untouched("workspace", memory, sizeof memory);
    fixture.workspace_bytes = bytes;
    refusal_assert_ok("attn_softmax", softmax_fixture_run(&fixture));
    softmax_fixture_assert_values(&fixture);
    refusal_assert_untouched("memory after the workspace", memory + 1 + bytes,
                             sizeof memory - 1 - bytes);
}

static void newer_struct_is_accepted_until_it_asks_for_more(void **state) {
    (void)state;
    union {
        attn_softmax_params known;
        unsigned char bytes[sizeof(attn_softmax_params) + 8];
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.known.struct_size = sizeof newer;
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, test_context);
    fixture.params = &newer.known;
    refusal_assert_ok("attn_softmax", softmax_fixture_run(&fixture));
    softmax_fixture_assert_values(&fixture);
    softmax_fixture_prepare(&fixture, test_context);
    fixture.params = &newer.known;
    newer.bytes[sizeof newer.known] = 1;
    refusal_assert("attn_softmax", softmax_fixture_run(&fixture), ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("params", sizeof newer.known, sizeof newer.known));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    assert_usable();
}

/* lse is the last field of release 0.1. */
static void struct_of_first_release_is_accepted(void **state) {
    (void)state;
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, test_context);
    fixture.options.struct_size = offsetof(attn_softmax_params, lse) + sizeof fixture.options.lse;
    refusal_assert_ok("attn_softmax", softmax_fixture_run(&fixture));
    softmax_fixture_assert_values(&fixture);
}

static void struct_size_too_small_is_refused(void **state) {
    (void)state;
    const uint64_t sizes[] = {0, 8, sizeof(attn_softmax_params) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        softmax_fixture fixture;
        softmax_fixture_prepare(&fixture, test_context);
        fixture.options.struct_size = sizes[i];
        refusal_assert("attn_softmax", softmax_fixture_run(&fixture), ATTN_ERROR_VALUE,
                       refusal_size_line("params", sizeof fixture.options, sizes[i]));
        refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    }
    assert_usable();
}

static void result_null_is_refused(void **state) {
    (void)state;
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, test_context);
    refusal_assert("attn_softmax_workspace_bytes", softmax_fixture_workspace_bytes(&fixture, NULL),
                   ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
}

/* The one overlap that is allowed: the very same view. */
static void output_that_is_input_is_accepted(void **state) {
    (void)state;
    softmax_fixture fixture;
    softmax_fixture separate;
    softmax_fixture_prepare(&separate, test_context);
    refusal_assert_ok("attn_softmax", softmax_fixture_run(&separate));
    softmax_fixture_prepare(&fixture, test_context);
    fixture.arguments[SOFTMAX_OUTPUT] = &fixture.views[SOFTMAX_INPUT];
    refusal_assert_ok("attn_softmax", softmax_fixture_run(&fixture));
    assert_memory_equal(fixture.memory.input, separate.memory.output,
                        sizeof separate.memory.output);
}

/* The stride of an axis of length 1 is never used, so it may be anything. */
static void strides_of_unit_axes_are_not_used(void **state) {
    (void)state;
    float values[] = {5, 0};
    const int64_t shape[] = {1, 1};
    attn_tensor input = refusal_view(&values[0], ATTN_DTYPE_FLOAT32, 2, shape);
    attn_tensor output = refusal_view(&values[1], ATTN_DTYPE_FLOAT32, 2, shape);
    input.strides[0] = INT64_MAX;
    input.strides[1] = -INT64_MAX;
    output.strides[0] = -INT64_MAX;
    output.strides[1] = INT64_MAX;
    refusal_assert_ok("attn_softmax", attn_softmax(test_context, &input, NULL, &output, NULL, 0));
    assert_true(values[1] == 1);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(strides_of_unit_axes_are_not_used),
    cmocka_unit_test(lengths_of_int32_count_and_are_refused_out_of_range),
    cmocka_unit_test(workspace_one_byte_short_is_refused),
    cmocka_unit_test(newer_struct_is_accepted_until_it_asks_for_more),
    cmocka_unit_test(struct_of_first_release_is_accepted),
    cmocka_unit_test(struct_size_too_small_is_refused),
    cmocka_unit_test(result_null_is_refused),
    cmocka_unit_test(output_that_is_input_is_accepted),
};

int main(void) {
    static refusal_suite suite;
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 2};
    if (attn_context_create(&params, &test_context) != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        return 1;
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_refusal, &refused[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    const int failures = refusal_suite_run(&suite, "errors of softmax");
    attn_context_destroy(test_context);
    return failures;
}
