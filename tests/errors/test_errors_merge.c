/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_merge.c: what attn_sdpa_merge says of every argument it refuses.
 */
#include <string.h>

#include "merge_fixture.h"

/* What is wrong beside the views; 0: nothing. */
typedef enum merge_fault {
    FAULT_NONE,
    FAULT_COUNT_ZERO,
    FAULT_COUNT_NEGATIVE,
    FAULT_NO_OUTPUTS,
    FAULT_NO_OUTPUT,
    FAULT_NO_LSES,
    FAULT_NO_LSES_BUT_SINKS
} merge_fault;

typedef struct merge_refusal {
    const char *name;
    merge_fault fault;
    refusal_spoil spoil; /* sinks that are spoilt are also linked */
    attn_status status;
    const char *line;
} merge_refusal;

static attn_context *test_context;

static void assert_usable(void) {
    merge_fixture fixture;
    merge_fixture_prepare(&fixture, test_context);
    refusal_assert_ok("attn_sdpa_merge", merge_fixture_run(&fixture));
    merge_fixture_assert_values(&fixture);
}

static void apply(const merge_refusal *entry, merge_fixture *fixture) {
    const merge_fault fault = entry->fault;
    const bool links_sinks =
        fault == FAULT_NO_LSES_BUT_SINKS ||
        (entry->spoil.fault != REFUSAL_NO_FAULT && entry->spoil.tensor == MERGE_SINKS);
    fixture->count = fault == FAULT_COUNT_ZERO       ? 0
                     : fault == FAULT_COUNT_NEGATIVE ? -7
                                                     : fixture->count;
    fixture->has_outputs = fault != FAULT_NO_OUTPUTS;
    fixture->has_output = fault != FAULT_NO_OUTPUT;
    fixture->has_lses = fault != FAULT_NO_LSES && fault != FAULT_NO_LSES_BUT_SINKS;
    fixture->has_lse = fault != FAULT_NO_LSES_BUT_SINKS;
    fixture->options.sinks = links_sinks ? &fixture->views[MERGE_SINKS] : NULL;
    refusal_spoil_view(fixture->views, &entry->spoil);
}

static void test_refusal(void **state) {
    const merge_refusal *entry = *state;
    merge_fixture fixture;
    merge_fixture_prepare(&fixture, test_context);
    apply(entry, &fixture);
    merge_memory before;
    memcpy(&before, &fixture.memory, sizeof before);
    refusal_assert("attn_sdpa_merge", merge_fixture_run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_usable();
}

enum { FLOAT_BYTES = sizeof(float) };

static const merge_refusal refused[] = {
    {.name = "count_0_is_refused",
     .fault = FAULT_COUNT_ZERO,
     .status = ATTN_ERROR_VALUE,
     .line = "count: expected 1 and up, got 0"},
    {.name = "count_negative_is_refused",
     .fault = FAULT_COUNT_NEGATIVE,
     .status = ATTN_ERROR_VALUE,
     .line = "count: expected 1 and up, got -7"},
    {.name = "outputs_null_is_refused",
     .fault = FAULT_NO_OUTPUTS,
     .status = ATTN_ERROR_NULL,
     .line = "outputs: expected count=2 tensors, got NULL"},
    {.name = "output_null_is_refused",
     .fault = FAULT_NO_OUTPUT,
     .status = ATTN_ERROR_NULL,
     .line = "output: expected a tensor, got NULL"},
    {.name = "lse_without_lses_is_refused",
     .fault = FAULT_NO_LSES,
     .status = ATTN_ERROR_VALUE,
     .line = "lse: expected NULL without lses"},
    {.name = "sinks_without_lses_are_refused",
     .fault = FAULT_NO_LSES_BUT_SINKS,
     .status = ATTN_ERROR_VALUE,
     .line = "sinks: expected NULL without lses"},
    {.name = "output_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = MERGE_OUTPUT},
     .status = ATTN_ERROR_NULL,
     .line = "output: expected data for shape (2, 3, 4), got NULL"},
    {.name = "part_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = MERGE_SECOND},
     .status = ATTN_ERROR_NULL,
     .line = "outputs[1]: expected data for shape (2, 3, 4), got NULL"},
    {.name = "part_lse_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = MERGE_SECOND_LSE},
     .status = ATTN_ERROR_NULL,
     .line = "lses[1]: expected data for shape (2, 3), got NULL"},
    {.name = "lse_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = MERGE_LSE},
     .status = ATTN_ERROR_NULL,
     .line = "lse: expected data for shape (2, 3), got NULL"},
    {.name = "sinks_data_null_is_refused",
     .spoil = {REFUSAL_NO_DATA, .tensor = MERGE_SINKS},
     .status = ATTN_ERROR_NULL,
     .line = "sinks: expected data for shape (2), got NULL"},
    {.name = "output_bool_is_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_OUTPUT, .value = ATTN_DTYPE_BOOL},
     .status = ATTN_ERROR_DTYPE,
     .line = "output: expected dtype float32, float64, bfloat16 or float16, got bool"},
    {.name = "output_float64_beside_float32_is_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_OUTPUT, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "outputs[0]: expected dtype float64, got float32"},
    {.name = "part_float64_is_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_SECOND, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "outputs[1]: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "part_dtype_unknown_is_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_FIRST, .value = 99},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "outputs[0]: expected a dtype of enum attn_dtype, got 99, unknown to this version"},
    {.name = "part_lse_bfloat16_is_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_FIRST_LSE, .value = ATTN_DTYPE_BFLOAT16},
     .status = ATTN_ERROR_DTYPE,
     .line = "lses[0]: expected dtype float32, got bfloat16"},
    {.name = "lse_float64_is_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_LSE, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "lse: expected dtype float32, got float64"},
    {.name = "sinks_float64_are_refused",
     .spoil = {REFUSAL_DTYPE, MERGE_SINKS, .value = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "sinks: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "output_rank_1_is_refused",
     .spoil = {REFUSAL_RANK, MERGE_OUTPUT, .value = 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected rank 2 to 8, got 1"},
    {.name = "output_rank_9_is_refused",
     .spoil = {REFUSAL_RANK, MERGE_OUTPUT, .value = 9},
     .status = ATTN_ERROR_VALUE,
     .line = "output: expected rank 0 to 8, got 9"},
    {.name = "part_rank_4_is_refused",
     .spoil = {REFUSAL_RANK, MERGE_SECOND, .value = 4},
     .status = ATTN_ERROR_SHAPE,
     .line = "outputs[1]: expected shape (H=2, L=3, Ev=4), got (1, 2, 3, 4)"},
    {.name = "part_columns_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, MERGE_FIRST, .axis = 2, .value = MERGE_EV - 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "outputs[0]: expected shape (H=2, L=3, Ev=4), got (2, 3, 3)"},
    {.name = "part_of_length_1_does_not_broadcast",
     .spoil = {REFUSAL_LENGTH, MERGE_FIRST, .axis = 0, .value = 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "outputs[0]: expected shape (H=2, L=3, Ev=4), got (1, 3, 4)"},
    {.name = "part_lse_rows_differ_is_refused",
     .spoil = {REFUSAL_LENGTH, MERGE_SECOND_LSE, .axis = 1, .value = MERGE_L - 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "lses[1]: expected shape (H=2, L=3), got (2, 2)"},
    {.name = "lse_rank_3_is_refused",
     .spoil = {REFUSAL_RANK, MERGE_LSE, .value = 3},
     .status = ATTN_ERROR_SHAPE,
     .line = "lse: expected shape (H=2, L=3), got (1, 2, 3)"},
    {.name = "sinks_of_other_heads_are_refused",
     .spoil = {REFUSAL_LENGTH, MERGE_SINKS, .axis = 0, .value = MERGE_H + 1},
     .status = ATTN_ERROR_SHAPE,
     .line = "sinks: expected a shape that broadcasts to (H=2), got (3)"},
    {.name = "sinks_rank_2_are_refused",
     .spoil = {REFUSAL_RANK, MERGE_SINKS, .value = 2},
     .status = ATTN_ERROR_SHAPE,
     .line = "sinks: expected rank 1, got 2"},
    {.name = "part_length_negative_is_refused",
     .spoil = {REFUSAL_LENGTH, MERGE_FIRST, .axis = 1, .value = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "outputs[0]: expected lengths of 0 and up, got -1 on axis 1"},
    {.name = "part_stride_beyond_int64_is_refused",
     .spoil = {REFUSAL_STRIDE, MERGE_SECOND, .axis = 0, .value = INT64_MAX},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "outputs[1]: shape (2, 3, 4) with its strides exceeds 2^63 bytes"},
    {.name = "output_that_repeats_is_refused",
     .spoil = {REFUSAL_STRIDE, MERGE_OUTPUT, .axis = 0, .value = 0},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 0 on axis 0"},
    {.name = "lse_that_repeats_is_refused",
     .spoil = {REFUSAL_STRIDE, MERGE_LSE, .axis = 1, .value = 0},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected strides that give every element its own memory, got 0 on axis 1"},
    {.name = "output_shifted_on_a_part_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_OUTPUT, .other = MERGE_SECOND, .value = FLOAT_BYTES},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps outputs[1]"},
    {.name = "output_on_lses_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_FIRST_LSE, .other = MERGE_OUTPUT, .value = FLOAT_BYTES},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps lses[0]"},
    {.name = "output_on_lse_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_LSE, .other = MERGE_OUTPUT},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps output"},
    {.name = "lse_on_a_part_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_LSE, .other = MERGE_FIRST},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps outputs[0]"},
    {.name = "lse_shifted_on_lses_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_LSE, .other = MERGE_FIRST_LSE, .value = FLOAT_BYTES},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps lses[0]"},
    {.name = "output_on_sinks_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_SINKS, .other = MERGE_OUTPUT},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps sinks"},
    {.name = "lse_on_sinks_is_refused",
     .spoil = {REFUSAL_MEMORY, MERGE_SINKS, .other = MERGE_LSE},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps sinks"},
};

/* The number of a part that is past the first ten. */
static void part_is_named_by_all_its_digits(void **state) {
    (void)state;
    enum { COUNT = 120, WRONG = 117 };
    merge_fixture fixture;
    merge_fixture_prepare(&fixture, test_context);
    attn_tensor outputs[COUNT];
    for (int part = 0; part < COUNT; ++part) {
        outputs[part] = fixture.views[part % MERGE_PARTS];
    }
    outputs[WRONG].shape[2] = 1;
    const attn_status status = attn_sdpa_merge(test_context, COUNT, outputs, NULL, NULL,
                                               &fixture.views[MERGE_OUTPUT], NULL);
    refusal_assert("attn_sdpa_merge", status, ATTN_ERROR_SHAPE,
                   "outputs[117]: expected shape (H=2, L=3, Ev=4), got (2, 3, 1)");
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
}

/* In place: output one of outputs, lse one of lses, with the same bits as apart. */
static void results_that_are_a_part_are_accepted(void **state) {
    (void)state;
    merge_fixture separate;
    merge_fixture_prepare(&separate, test_context);
    refusal_assert_ok("attn_sdpa_merge", merge_fixture_run(&separate));
    for (int part = 0; part < MERGE_PARTS; ++part) {
        for (int which = 1; which <= 3; ++which) {
            merge_fixture fixture;
            merge_fixture_prepare(&fixture, test_context);
            attn_tensor *views = fixture.views;
            const int output = (which & 1) != 0 ? MERGE_FIRST + part : MERGE_OUTPUT;
            const int lse = (which & 2) != 0 ? MERGE_FIRST_LSE + part : MERGE_LSE;
            views[MERGE_OUTPUT] = views[output];
            views[MERGE_LSE] = views[lse];
            refusal_assert_ok("attn_sdpa_merge", merge_fixture_run(&fixture));
            assert_memory_equal(views[MERGE_OUTPUT].data, separate.memory.output,
                                sizeof separate.memory.output);
            assert_memory_equal(views[MERGE_LSE].data, separate.memory.lse,
                                sizeof separate.memory.lse);
        }
    }
}

/* The stride of an axis of length 1 is never used, so it may be anything. */
static void strides_of_unit_axes_are_not_used(void **state) {
    (void)state;
    float values[] = {5, 0}, logits[] = {1, 0};
    const int64_t shape[] = {1, 1, 1};
    attn_tensor views[4];
    for (int i = 0; i < 4; ++i) {
        float *data = i < 2 ? &values[i] : &logits[i - 2];
        views[i] = refusal_view(data, ATTN_DTYPE_FLOAT32, i < 2 ? 3 : 2, shape);
        for (int32_t axis = 0; axis < views[i].rank; ++axis) {
            views[i].strides[axis] = (i + axis) % 2 == 0 ? INT64_MAX : -INT64_MAX;
        }
    }
    refusal_assert_ok("attn_sdpa_merge", attn_sdpa_merge(test_context, 1, &views[0], &views[2],
                                                         NULL, &views[1], &views[3]));
    assert_true(values[1] == 5 && logits[1] == 1);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(part_is_named_by_all_its_digits),
    cmocka_unit_test(results_that_are_a_part_are_accepted),
    cmocka_unit_test(strides_of_unit_axes_are_not_used),
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
    const int failures = refusal_suite_run(&suite, "errors of merge");
    attn_context_destroy(test_context);
    return failures;
}
