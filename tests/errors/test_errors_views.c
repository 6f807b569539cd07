/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_views.c: what the functions that make one view of another say of arguments they
 * refuse.
 */
#include "refusal.h"

/* One call: fields a function does not take are ignored by its caller below. */
typedef struct view_refusal {
    const char *name;
    attn_status (*call)(const struct view_refusal *entry, attn_tensor *view);
    attn_tensor tensor;
    bool no_tensor; /* the tensor is NULL */
    bool no_result; /* the place of the result is NULL */
    int32_t axis_a, axis_b;
    int64_t start, length, step;
    int64_t num_heads;
    attn_status status;
    const char *line;
} view_refusal;

static attn_status call_transpose(const view_refusal *entry, attn_tensor *view) {
    return attn_tensor_transpose(entry->no_tensor ? NULL : &entry->tensor, entry->axis_a,
                                 entry->axis_b, entry->no_result ? NULL : view);
}

static attn_status call_slice(const view_refusal *entry, attn_tensor *view) {
    return attn_tensor_slice(entry->no_tensor ? NULL : &entry->tensor, entry->axis_a, entry->start,
                             entry->length, entry->step, entry->no_result ? NULL : view);
}

static attn_status call_select(const view_refusal *entry, attn_tensor *view) {
    return attn_tensor_select(entry->no_tensor ? NULL : &entry->tensor, entry->axis_a, entry->start,
                              entry->no_result ? NULL : view);
}

static attn_status call_split_heads(const view_refusal *entry, attn_tensor *view) {
    return attn_tensor_split_heads(entry->no_tensor ? NULL : &entry->tensor, entry->num_heads,
                                   entry->no_result ? NULL : view);
}

static attn_status call_merge_heads(const view_refusal *entry, attn_tensor *view) {
    return attn_tensor_merge_heads(entry->no_tensor ? NULL : &entry->tensor,
                                   entry->no_result ? NULL : view);
}

/* (2, 3, 8) and (2, 4, 3, 2): one to slice and split, one to merge. */
#define FEATURES                                                                            \
    {                                                                                       \
        .dtype = ATTN_DTYPE_FLOAT32, .rank = 3, .shape = {2, 3, 8}, .strides = { 24, 8, 1 } \
    }
#define HEADS                                                                                     \
    {                                                                                             \
        .dtype = ATTN_DTYPE_FLOAT32, .rank = 4, .shape = {2, 4, 3, 2}, .strides = { 24, 2, 8, 1 } \
    }

static const view_refusal refused[] = {
    {.name = "transpose_tensor_null_is_refused",
     .call = call_transpose,
     .no_tensor = true,
     .axis_b = 1,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a tensor, got NULL"},
    {.name = "transpose_view_null_is_refused",
     .call = call_transpose,
     .tensor = FEATURES,
     .no_result = true,
     .axis_b = 1,
     .status = ATTN_ERROR_NULL,
     .line = "view: expected a struct to fill, got NULL"},
    {.name = "transpose_axis_a_past_end_is_refused",
     .call = call_transpose,
     .tensor = FEATURES,
     .axis_a = 3,
     .axis_b = 1,
     .status = ATTN_ERROR_VALUE,
     .line = "axis_a: expected an axis of a rank-3 tensor, got 3"},
    {.name = "transpose_axis_b_before_start_is_refused",
     .call = call_transpose,
     .tensor = FEATURES,
     .axis_b = -4,
     .status = ATTN_ERROR_VALUE,
     .line = "axis_b: expected an axis of a rank-3 tensor, got -4"},
    {.name = "transpose_axis_lowest_is_refused",
     .call = call_transpose,
     .tensor = FEATURES,
     .axis_a = INT32_MIN,
     .status = ATTN_ERROR_VALUE,
     .line = "axis_a: expected an axis of a rank-3 tensor, got -2147483648"},
    {.name = "transpose_of_rank_9_is_refused",
     .call = call_transpose,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 9},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected rank 0 to 8, got 9"},
    {.name = "transpose_of_rank_0_is_refused",
     .call = call_transpose,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32},
     .status = ATTN_ERROR_VALUE,
     .line = "axis_a: expected an axis of a rank-0 tensor, got 0"},
    {.name = "slice_tensor_null_is_refused",
     .call = call_slice,
     .no_tensor = true,
     .step = 1,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a tensor, got NULL"},
    {.name = "slice_view_null_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 0,
     .start = 0,
     .length = 1,
     .step = 1,
     .no_result = true,
     .status = ATTN_ERROR_NULL,
     .line = "view: expected a struct to fill, got NULL"},
    {.name = "slice_axis_past_end_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 3,
     .start = 0,
     .length = 1,
     .step = 1,
     .status = ATTN_ERROR_VALUE,
     .line = "axis: expected an axis of a rank-3 tensor, got 3"},
    {.name = "slice_step_zero_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 0,
     .length = 1,
     .step = 0,
     .status = ATTN_ERROR_VALUE,
     .line = "step: expected a step other than 0, got 0"},
    {.name = "slice_that_ends_beyond_int64_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 1,
     .length = 2,
     .step = INT64_MAX,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 2 of them from 1 by "
             "9223372036854775807"},
    {.name = "slice_length_negative_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 0,
     .length = -1,
     .step = 1,
     .status = ATTN_ERROR_VALUE,
     .line = "length: expected 0 and up, got -1"},
    {.name = "select_tensor_null_is_refused",
     .call = call_select,
     .no_tensor = true,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a tensor, got NULL"},
    {.name = "select_view_null_is_refused",
     .call = call_select,
     .tensor = FEATURES,
     .no_result = true,
     .status = ATTN_ERROR_NULL,
     .line = "view: expected a struct to fill, got NULL"},
    {.name = "select_axis_past_end_is_refused",
     .call = call_select,
     .tensor = FEATURES,
     .axis_a = 3,
     .status = ATTN_ERROR_VALUE,
     .line = "axis: expected an axis of a rank-3 tensor, got 3"},
    {.name = "select_of_rank_0_is_refused",
     .call = call_select,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32},
     .axis_a = -1,
     .status = ATTN_ERROR_VALUE,
     .line = "axis: expected an axis of a rank-0 tensor, got -1"},
    {.name = "select_index_negative_is_refused",
     .call = call_select,
     .tensor = FEATURES,
     .axis_a = -1,
     .start = -1,
     .status = ATTN_ERROR_VALUE,
     .line = "index: expected a position within axis 2 of length 8, got -1"},
    {.name = "select_index_past_end_is_refused",
     .call = call_select,
     .tensor = FEATURES,
     .axis_a = 1,
     .start = 3,
     .status = ATTN_ERROR_VALUE,
     .line = "index: expected a position within axis 1 of length 3, got 3"},
    {.name = "slice_start_negative_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = -1,
     .length = 1,
     .step = 1,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 1 of them from -1 by 1"},
    {.name = "slice_start_past_end_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 8,
     .length = 1,
     .step = 1,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 1 of them from 8 by 1"},
    {.name = "slice_end_past_end_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 5,
     .length = 4,
     .step = 1,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 4 of them from 5 by 1"},
    {.name = "slice_reversed_past_start_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 3,
     .length = 5,
     .step = -1,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 5 of them from 3 by -1"},
    {.name = "slice_step_past_end_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 0,
     .length = 5,
     .step = 2,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 5 of them from 0 by 2"},
    {.name = "slice_step_overflows_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 1,
     .length = 3,
     .step = INT64_MAX,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 3 of them from 1 by "
             "9223372036854775807"},
    {.name = "slice_step_lowest_is_refused",
     .call = call_slice,
     .tensor = FEATURES,
     .axis_a = 2,
     .start = 1,
     .length = 2,
     .step = INT64_MIN,
     .status = ATTN_ERROR_VALUE,
     .line = "start: expected positions within axis 2 of length 8, got 2 of them from 1 by "
             "-9223372036854775808"},
    {.name = "split_tensor_null_is_refused",
     .call = call_split_heads,
     .no_tensor = true,
     .num_heads = 2,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a tensor, got NULL"},
    {.name = "split_view_null_is_refused",
     .call = call_split_heads,
     .tensor = FEATURES,
     .no_result = true,
     .num_heads = 2,
     .status = ATTN_ERROR_NULL,
     .line = "view: expected a struct to fill, got NULL"},
    {.name = "split_rank_1_is_refused",
     .call = call_split_heads,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {8}, .strides = {1}},
     .num_heads = 2,
     .status = ATTN_ERROR_SHAPE,
     .line = "tensor: expected rank 2 to 7, got 1"},
    {.name = "split_rank_8_is_refused",
     .call = call_split_heads,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 8, .shape = {1, 1, 1, 1, 1, 1, 1, 8}},
     .num_heads = 2,
     .status = ATTN_ERROR_SHAPE,
     .line = "tensor: expected rank 2 to 7, got 8"},
    {.name = "split_heads_do_not_divide_is_refused",
     .call = call_split_heads,
     .tensor = FEATURES,
     .num_heads = 3,
     .status = ATTN_ERROR_SHAPE,
     .line = "tensor: expected a last axis divisible by num_heads=3, got 8"},
    {.name = "split_heads_zero_is_refused",
     .call = call_split_heads,
     .tensor = FEATURES,
     .num_heads = 0,
     .status = ATTN_ERROR_VALUE,
     .line = "num_heads: expected 1 and up, got 0"},
    {.name = "split_heads_negative_is_refused",
     .call = call_split_heads,
     .tensor = FEATURES,
     .num_heads = -2,
     .status = ATTN_ERROR_VALUE,
     .line = "num_heads: expected 1 and up, got -2"},
    {.name = "merge_tensor_null_is_refused",
     .call = call_merge_heads,
     .no_tensor = true,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a tensor, got NULL"},
    {.name = "merge_view_null_is_refused",
     .call = call_merge_heads,
     .tensor = HEADS,
     .no_result = true,
     .status = ATTN_ERROR_NULL,
     .line = "view: expected a struct to fill, got NULL"},
    {.name = "merge_rank_2_is_refused",
     .call = call_merge_heads,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}, .strides = {3, 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "tensor: expected rank 3 to 8, got 2"},
    {.name = "merge_heads_apart_is_refused",
     .call = call_merge_heads,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 3, .shape = {4, 3, 2}, .strides = {6, 2, 1}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected heads 2 elements apart so that they merge without a copy, got 6"},
};

static void test_refusal(void **state) {
    const view_refusal *entry = *state;
    attn_tensor result;
    refusal_fill(&result, sizeof result);
    refusal_assert(entry->name, entry->call(entry, &result), entry->status, entry->line);
    refusal_assert_untouched("result", &result, sizeof result);
}

/* A failed call leaves the view it was given usable: the same call with the mistake mended succeeds
 * in place. */
static void view_after_refusal_is_usable(void **state) {
    (void)state;
    attn_tensor tensor = FEATURES;
    refusal_assert("attn_tensor_slice", attn_tensor_slice(&tensor, 2, 4, 8, 1, &tensor),
                   ATTN_ERROR_VALUE, "start: ...");
    refusal_assert_ok("attn_tensor_slice", attn_tensor_slice(&tensor, 2, 4, 4, 1, &tensor));
    refusal_assert_ok("attn_tensor_split_heads", attn_tensor_split_heads(&tensor, 2, &tensor));
    assert_int_equal(tensor.shape[1], 2);
    assert_int_equal(tensor.shape[3], 2);
}

/* Strides near the ends of int64_t that a valid view may have must not overflow on the way to a new
 * view. */
static void heads_of_extreme_strides_are_handled(void **state) {
    (void)state;
    const attn_tensor features = {
        .dtype = ATTN_DTYPE_BOOL, .rank = 2, .shape = {1, 2}, .strides = {0, INT64_MAX - 1}};
    const attn_tensor heads = {.dtype = ATTN_DTYPE_BOOL,
                               .rank = 3,
                               .shape = {2, 1, 2},
                               .strides = {1, 0, (INT64_C(1) << 62) + 1}};
    attn_tensor view;
    refusal_assert_ok("attn_tensor_split_heads", attn_tensor_split_heads(&features, 1, &view));
    assert_int_equal(view.strides[2], INT64_MAX - 1);
    refusal_assert("attn_tensor_merge_heads", attn_tensor_merge_heads(&heads, &view),
                   ATTN_ERROR_VALUE, "tensor: ...");
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(view_after_refusal_is_usable),
    cmocka_unit_test(heads_of_extreme_strides_are_handled),
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_refusal, &refused[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return refusal_suite_run(&suite, "errors of views");
}
