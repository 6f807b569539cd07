/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_tensor.c: what describing memory and counting elements say of arguments they refuse,
 * and what the status functions say of statuses.
 */
#include <string.h>

#include "refusal.h"

/* Everything a function on views may write. */
typedef struct view_result {
    attn_tensor view;
    int64_t count;
} view_result;

/* One call. */
typedef struct tensor_refusal {
    const char *name;
    attn_status (*call)(const struct tensor_refusal *entry, view_result *result);
    attn_tensor tensor; /* its shape and strides are the arguments, or it is the tensor to count */
    bool no_tensor;     /* the tensor, or the shape, is NULL */
    bool no_result;     /* the place of the result, or the strides, are NULL */
    attn_status status;
    const char *line;
} tensor_refusal;

static attn_status call_init(const tensor_refusal *entry, view_result *result) {
    return attn_tensor_init(entry->no_result ? NULL : &result->view, NULL, entry->tensor.dtype,
                            entry->tensor.rank, entry->no_tensor ? NULL : entry->tensor.shape);
}

static attn_status call_init_strided(const tensor_refusal *entry, view_result *result) {
    return attn_tensor_init_strided(&result->view, NULL, entry->tensor.dtype, entry->tensor.rank,
                                    entry->no_tensor ? NULL : entry->tensor.shape,
                                    entry->no_result ? NULL : entry->tensor.strides);
}

static attn_status call_init_strided_null(const tensor_refusal *entry, view_result *result) {
    (void)result;
    return attn_tensor_init_strided(NULL, NULL, entry->tensor.dtype, entry->tensor.rank,
                                    entry->tensor.shape, entry->tensor.strides);
}

static attn_status call_count(const tensor_refusal *entry, view_result *result) {
    return attn_tensor_count(entry->no_tensor ? NULL : &entry->tensor,
                             entry->no_result ? NULL : &result->count);
}

/* (2, 3, 8), contiguous. */
#define FEATURES                                                                            \
    {                                                                                       \
        .dtype = ATTN_DTYPE_FLOAT32, .rank = 3, .shape = {2, 3, 8}, .strides = { 24, 8, 1 } \
    }

static const tensor_refusal refused[] = {
    {.name = "init_tensor_null_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}},
     .no_result = true,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a struct to fill, got NULL"},
    {.name = "init_shape_null_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}},
     .no_tensor = true,
     .status = ATTN_ERROR_NULL,
     .line = "shape: expected 2 lengths, got NULL"},
    {.name = "init_dtype_zero_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_INVALID, .rank = 2, .shape = {2, 3}},
     .status = ATTN_ERROR_DTYPE,
     .line = "tensor: expected a dtype of enum attn_dtype, got invalid"},
    {.name = "init_dtype_unknown_is_refused",
     .call = call_init,
     .tensor = {.dtype = 99, .rank = 2, .shape = {2, 3}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "tensor: expected a dtype of enum attn_dtype, got 99, unknown to this version"},
    {.name = "init_dtype_first_unknown_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_UINT4X2 + 1, .rank = 2, .shape = {2, 3}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "tensor: expected a dtype of enum attn_dtype, got 16, unknown to this version"},
    {.name = "init_dtype_negative_is_refused",
     .call = call_init,
     .tensor = {.dtype = -1, .rank = 2, .shape = {2, 3}},
     .status = ATTN_ERROR_DTYPE,
     .line = "tensor: expected a dtype of enum attn_dtype, got unknown"},
    {.name = "init_rank_9_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 9, .shape = {2, 3}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected rank 0 to 8, got 9"},
    {.name = "init_rank_negative_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = -1, .shape = {2, 3}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected rank 0 to 8, got -1"},
    {.name = "init_rank_lowest_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = INT32_MIN, .shape = {2, 3}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected rank 0 to 8, got -2147483648"},
    {.name = "init_length_negative_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, -3}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected lengths of 0 and up, got -3 on axis 1"},
    {.name = "init_length_lowest_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {INT64_MIN, 3}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected lengths of 0 and up, got -9223372036854775808 on axis 0"},
    {.name = "init_count_beyond_int64_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {INT64_MAX, 3}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (9223372036854775807, 3) with its strides exceeds 2^63 bytes"},
    {.name = "init_bytes_beyond_int64_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {INT64_MAX / 8, 3}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (1152921504606846975, 3) with its strides exceeds 2^63 bytes"},
    {.name = "init_empty_but_huge_is_refused",
     .call = call_init,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 3, .shape = {0, INT64_MAX, 3}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (0, 9223372036854775807, 3) with its strides exceeds 2^63 bytes"},
    {.name = "init_strided_tensor_null_is_refused",
     .call = call_init_strided_null,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}, .strides = {3, 1}},
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a struct to fill, got NULL"},
    {.name = "init_strided_shape_null_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}, .strides = {3, 1}},
     .no_tensor = true,
     .status = ATTN_ERROR_NULL,
     .line = "shape: expected 2 lengths, got NULL"},
    {.name = "init_strided_strides_null_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}},
     .no_result = true,
     .status = ATTN_ERROR_NULL,
     .line = "strides: expected 2 strides, got NULL"},
    {.name = "init_strided_dtype_zero_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_INVALID, .rank = 2, .shape = {2, 3}, .strides = {3, 1}},
     .status = ATTN_ERROR_DTYPE,
     .line = "tensor: expected a dtype of enum attn_dtype, got invalid"},
    {.name = "init_strided_rank_9_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 9, .shape = {2, 3}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected rank 0 to 8, got 9"},
    {.name = "init_strided_length_negative_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {-1, 3}, .strides = {3, 1}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected lengths of 0 and up, got -1 on axis 0"},
    {.name = "init_strided_reach_beyond_int64_is_refused",
     .call = call_init_strided,
     .tensor =
         {.dtype = ATTN_DTYPE_FLOAT32, .rank = 2, .shape = {2, 3}, .strides = {INT64_MAX / 2, 1}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (2, 3) with its strides exceeds 2^63 bytes"},
    {.name = "init_strided_reach_below_int64_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32,
                .rank = 2,
                .shape = {2, 3},
                .strides = {-(INT64_MAX / 2), 1}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (2, 3) with its strides exceeds 2^63 bytes"},
    {.name = "init_strided_sum_beyond_int64_is_refused",
     .call = call_init_strided,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32,
                .rank = 2,
                .shape = {2, 3},
                .strides = {INT64_MAX / 8, INT64_MAX / 8}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (2, 3) with its strides exceeds 2^63 bytes"},
    {.name = "count_tensor_null_is_refused",
     .call = call_count,
     .no_tensor = true,
     .status = ATTN_ERROR_NULL,
     .line = "tensor: expected a tensor, got NULL"},
    {.name = "count_result_null_is_refused",
     .call = call_count,
     .tensor = FEATURES,
     .no_result = true,
     .status = ATTN_ERROR_NULL,
     .line = "count: expected a place for the result, got NULL"},
    {.name = "count_rank_9_is_refused",
     .call = call_count,
     .tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 9},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected rank 0 to 8, got 9"},
    {.name = "count_dtype_unknown_is_refused",
     .call = call_count,
     .tensor = {.dtype = 77},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "tensor: expected a dtype of enum attn_dtype, got 77, unknown to this version"},
    {.name = "count_length_negative_is_refused",
     .call = call_count,
     .tensor = {.dtype = ATTN_DTYPE_BOOL, .rank = 1, .shape = {-5}},
     .status = ATTN_ERROR_VALUE,
     .line = "tensor: expected lengths of 0 and up, got -5 on axis 0"},
    {.name = "count_beyond_int64_is_refused",
     .call = call_count,
     .tensor = {.dtype = ATTN_DTYPE_INT64, .rank = 1, .shape = {INT64_MAX / 4}, .strides = {1}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "tensor: shape (2305843009213693951) with its strides exceeds 2^63 bytes"},
};

static void test_refusal(void **state) {
    const tensor_refusal *entry = *state;
    view_result result;
    refusal_fill(&result, sizeof result);
    refusal_assert(entry->name, entry->call(entry, &result), entry->status, entry->line);
    refusal_assert_untouched("result", &result, sizeof result);
}

static void unfallible_functions_accept_anything(void **state) {
    (void)state;
    const attn_tensor too_high = {.rank = 9};
    assert_int_equal(attn_tensor_is_contiguous(NULL), 0);
    assert_int_equal(attn_tensor_is_contiguous(&too_high), 0);
    assert_int_equal(attn_dtype_size_bytes(ATTN_DTYPE_INVALID), 0);
    assert_int_equal(attn_dtype_size_bytes(-1), 0);
    assert_int_equal(attn_dtype_size_bytes(INT32_MAX), 0);
}

static void status_names_are_those_of_the_enumeration(void **state) {
    (void)state;
    static const char *const names[] = {"ATTN_OK",
                                        "ATTN_ERROR_NULL",
                                        "ATTN_ERROR_VALUE",
                                        "ATTN_ERROR_SHAPE",
                                        "ATTN_ERROR_DTYPE",
                                        "ATTN_ERROR_OVERLAP",
                                        "ATTN_ERROR_OVERFLOW",
                                        "ATTN_ERROR_PARAMETER",
                                        "ATTN_ERROR_WORKSPACE",
                                        "ATTN_ERROR_MEMORY",
                                        "ATTN_ERROR_THREAD",
                                        "ATTN_ERROR_UNSUPPORTED",
                                        "ATTN_ERROR_BLAS",
                                        "ATTN_ERROR_SELFTEST"};
    const int32_t count = (int32_t)(sizeof names / sizeof names[0]);
    for (int32_t status = 0; status < count; ++status) {
        assert_string_equal(attn_status_name(status), names[status]);
        assert_true(strlen(attn_status_text(status)) > 0);
        for (int32_t other = 0; other < status; ++other) {
            assert_string_not_equal(attn_status_text(status), attn_status_text(other));
        }
    }
    const int32_t unknown[] = {-1, count, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; ++i) {
        assert_string_equal(attn_status_name(unknown[i]), "ATTN_ERROR_UNKNOWN");
        assert_true(strlen(attn_status_text(unknown[i])) > 0);
    }
}

static void last_error_copy_cuts_and_says_so(void **state) {
    (void)state;
    static const char line[] = "tensor: expected a struct to fill, got NULL";
    char buffer[sizeof line + 8];
    refusal_assert("attn_tensor_init", attn_tensor_init(NULL, NULL, ATTN_DTYPE_FLOAT32, 0, NULL),
                   ATTN_ERROR_NULL, line);
    assert_int_equal(attn_last_error_copy(NULL, 0), sizeof line);
    for (size_t bytes = 0; bytes <= sizeof buffer; ++bytes) {
        refusal_fill(buffer, sizeof buffer);
        assert_int_equal(attn_last_error_copy(buffer, bytes), sizeof line);
        const size_t kept = bytes < sizeof line ? bytes : sizeof line;
        if (kept > 0) {
            assert_int_equal(buffer[kept - 1], '\0');
            assert_memory_equal(buffer, line, kept - 1);
        }
        refusal_assert_untouched("buffer", buffer + kept, sizeof buffer - kept);
    }
}

static void success_clears_the_detail(void **state) {
    (void)state;
    attn_tensor tensor;
    refusal_assert("attn_tensor_init", attn_tensor_init(&tensor, NULL, 0, 0, NULL),
                   ATTN_ERROR_DTYPE, "tensor: ...");
    refusal_assert_ok("attn_tensor_init",
                      attn_tensor_init(&tensor, NULL, ATTN_DTYPE_BOOL, 0, NULL));
    assert_string_equal(attn_last_error(), "");
    assert_int_equal(attn_last_error_copy(NULL, 0), 1);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(unfallible_functions_accept_anything),
    cmocka_unit_test(status_names_are_those_of_the_enumeration),
    cmocka_unit_test(last_error_copy_cuts_and_says_so),
    cmocka_unit_test(success_clears_the_detail),
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_refusal, &refused[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return refusal_suite_run(&suite, "errors of tensors and statuses");
}
