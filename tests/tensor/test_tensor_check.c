/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_check.c: the checks every public function is made of: what they accept, and what they
 * say of the rest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/random.h"
#include "tensor/tensor_check.h"

static char memory[4096];

static attn_tensor float_view(int32_t rank, const int64_t *shape) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, memory, ATTN_DTYPE_FLOAT32, rank, shape), ATTN_OK);
    return view;
}

/* `detail` is what attn_last_error must say; "" after ATTN_OK. */
static void assert_answer(attn_status status, attn_status expected, const char *detail) {
    assert_int_equal(status, expected);
    assert_string_equal(attn_last_error(), detail);
    attni_error_clear();
}

/* ---- texts ---- */

static void shape_text_of_any_rank_fits(void **state) {
    (void)state;
    char text[ATTNI_SHAPE_TEXT_BYTES];
    assert_string_equal(attni_shape_text(text, 0, NULL), "()");
    assert_string_equal(attni_shape_text(text, 1, (int64_t[]){7}), "(7)");
    assert_string_equal(attni_shape_text(text, 3, (int64_t[]){2, 0, -1}), "(2, 0, -1)");
    int64_t longest[ATTN_MAX_RANK];
    for (int i = 0; i < ATTN_MAX_RANK; ++i) {
        longest[i] = INT64_MIN;
    }
    assert_int_equal(strlen(attni_shape_text(text, ATTN_MAX_RANK, longest)), 8 * 20 + 7 * 2 + 2);
}

static void dtype_names_are_those_of_the_enum(void **state) {
    (void)state;
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_INVALID), "invalid");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_FLOAT32), "float32");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_FLOAT64), "float64");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_BOOL), "bool");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_INT64), "int64");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_BFLOAT16), "bfloat16");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_FLOAT16), "float16");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_INT32), "int32");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_INT8), "int8");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_UINT8), "uint8");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_FLOAT8_E4M3), "float8_e4m3");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_FLOAT8_E5M2), "float8_e5m2");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_INT4X2), "int4x2");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_Q8_0), "q8_0");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_Q4_0), "q4_0");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_UINT4X2), "uint4x2");
    assert_string_equal(attni_dtype_name(-1), "unknown");
    assert_string_equal(attni_dtype_name(ATTN_DTYPE_UINT4X2 + 1), "unknown");
}

/* ---- views ---- */

static void tensor_data_is_needed_only_where_there_are_elements(void **state) {
    (void)state;
    attn_tensor full = float_view(2, (int64_t[]){2, 3});
    attn_tensor empty = float_view(2, (int64_t[]){2, 0});
    attn_tensor single = float_view(0, NULL);
    full.data = NULL;
    empty.data = NULL;
    single.data = NULL;
    assert_answer(attni_check_tensor("key", &full, ATTNI_DATA_REQUIRED), ATTN_ERROR_NULL,
                  "key: expected data for shape (2, 3), got NULL");
    assert_answer(attni_check_tensor("key", &single, ATTNI_DATA_REQUIRED), ATTN_ERROR_NULL,
                  "key: expected data for shape (), got NULL");
    assert_answer(attni_check_tensor("key", &full, ATTNI_DATA_IGNORED), ATTN_OK, "");
    assert_answer(attni_check_tensor("key", &empty, ATTNI_DATA_REQUIRED), ATTN_OK, "");
}

static void rank_impossible_is_a_value_else_a_shape_error(void **state) {
    (void)state;
    attn_tensor view = float_view(3, (int64_t[]){1, 2, 3});
    assert_answer(attni_check_rank("key", &view, 3, 3), ATTN_OK, "");
    assert_answer(attni_check_rank("key", &view, 2, 8), ATTN_OK, "");
    assert_answer(attni_check_rank("key", &view, 4, 4), ATTN_ERROR_SHAPE,
                  "key: expected rank 4, got 3");
    assert_answer(attni_check_rank("key", &view, 4, 8), ATTN_ERROR_SHAPE,
                  "key: expected rank 4 to 8, got 3");
    assert_answer(attni_check_rank("key", &view, 0, 2), ATTN_ERROR_SHAPE,
                  "key: expected rank 0 to 2, got 3");
    view.rank = 9;
    assert_answer(attni_check_rank("key", &view, 0, 8), ATTN_ERROR_VALUE,
                  "key: expected rank 0 to 8, got 9");
    view.rank = -1;
    assert_answer(attni_check_rank("key", &view, 2, 2), ATTN_ERROR_VALUE,
                  "key: expected rank 2, got -1");
}

static void dtype_checks_accept_what_they_name(void **state) {
    (void)state;
    attn_tensor view = float_view(1, (int64_t[]){3});
    for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_INT32; ++dtype) {
        view.dtype = dtype;
        const bool is_single = dtype == ATTN_DTYPE_FLOAT32;
        const bool is_double = dtype == ATTN_DTYPE_FLOAT64;
        const bool is_half = dtype == ATTN_DTYPE_BFLOAT16 || dtype == ATTN_DTYPE_FLOAT16;
        const bool is_stored = is_single || is_half;
        assert_int_equal(attni_check_float("v", &view),
                         is_stored || is_double ? ATTN_OK : ATTN_ERROR_DTYPE);
        assert_int_equal(attni_check_float_option("v", &view, ATTN_DTYPE_FLOAT64),
                         is_single || is_double ? ATTN_OK : ATTN_ERROR_DTYPE);
        assert_int_equal(attni_check_float_option("v", &view, ATTN_DTYPE_FLOAT32),
                         is_single ? ATTN_OK : ATTN_ERROR_DTYPE);
        assert_int_equal(attni_check_beside("v", &view, ATTN_DTYPE_FLOAT64),
                         is_double ? ATTN_OK : ATTN_ERROR_DTYPE);
        assert_int_equal(attni_check_beside("v", &view, ATTN_DTYPE_FLOAT16),
                         is_stored ? ATTN_OK : ATTN_ERROR_DTYPE);
        assert_int_equal(attni_check_result("v", &view, ATTN_DTYPE_FLOAT64),
                         is_double ? ATTN_OK : ATTN_ERROR_DTYPE);
        assert_int_equal(attni_check_result("v", &view, ATTN_DTYPE_BFLOAT16),
                         is_single || dtype == ATTN_DTYPE_BFLOAT16 ? ATTN_OK : ATTN_ERROR_DTYPE);
        for (int32_t expected = ATTN_DTYPE_FLOAT32; expected <= ATTN_DTYPE_INT32; ++expected) {
            assert_int_equal(attni_check_dtype("v", &view, expected),
                             dtype == expected ? ATTN_OK : ATTN_ERROR_DTYPE);
        }
    }
    view.dtype = ATTN_DTYPE_INT64;
    attni_error_clear();
    assert_answer(attni_check_dtype("mask", &view, ATTN_DTYPE_BOOL), ATTN_ERROR_DTYPE,
                  "mask: expected dtype bool, got int64");
    assert_answer(attni_check_float("key", &view), ATTN_ERROR_DTYPE,
                  "key: expected dtype float32, float64, bfloat16 or float16, got int64");
    assert_answer(attni_check_beside("key", &view, ATTN_DTYPE_FLOAT32), ATTN_ERROR_DTYPE,
                  "key: expected dtype float32, bfloat16 or float16, got int64");
    assert_answer(attni_check_result("output", &view, ATTN_DTYPE_FLOAT16), ATTN_ERROR_DTYPE,
                  "output: expected dtype float16 or float32, got int64");
    assert_answer(attni_check_float_option("mask", &view, ATTN_DTYPE_FLOAT32), ATTN_ERROR_DTYPE,
                  "mask: expected dtype float32, got int64");
}

/* ---- shapes ---- */

static void shape_named_axes_are_told(void **state) {
    (void)state;
    const attni_axis axes[] = {{"N", 2}, {NULL, 7}, {"kdim", 16}};
    const attni_axis open[] = {{"N", ATTNI_ANY_LENGTH}, {NULL, 7}, {"kdim", 16}};
    const attn_tensor right = float_view(3, (int64_t[]){2, 7, 16});
    const attn_tensor other_batch = float_view(3, (int64_t[]){5, 7, 16});
    const attn_tensor other_last = float_view(3, (int64_t[]){2, 7, 12});
    const attn_tensor other_rank = float_view(2, (int64_t[]){2, 7});
    assert_answer(attni_check_shape("key", &right, axes, 3), ATTN_OK, "");
    assert_answer(attni_check_shape("key", &other_batch, open, 3), ATTN_OK, "");
    assert_answer(attni_check_shape("key", &other_batch, axes, 3), ATTN_ERROR_SHAPE,
                  "key: expected shape (N=2, 7, kdim=16), got (5, 7, 16)");
    assert_answer(attni_check_shape("key", &other_last, open, 3), ATTN_ERROR_SHAPE,
                  "key: expected shape (N, 7, kdim=16), got (2, 7, 12)");
    assert_answer(attni_check_shape("key", &other_rank, axes, 3), ATTN_ERROR_SHAPE,
                  "key: expected shape (N=2, 7, kdim=16), got (2, 7)");
    assert_answer(attni_check_shape("key", &right, axes, 2), ATTN_ERROR_SHAPE,
                  "key: expected shape (N=2, 7), got (2, 7, 16)");
}

/* ---- broadcasting ---- */

/* Offset of the element that axes[0..count) see at `index`: numpy's rule, aligned at the last axis.
 */
static int64_t broadcast_offset(const attn_tensor *tensor, int32_t count, const int64_t *index) {
    int64_t offset = 0;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        const int64_t at = index[count - tensor->rank + axis];
        offset += (tensor->shape[axis] == 1 ? 0 : at) * tensor->strides[axis];
    }
    return offset;
}

/* A shape is told as far as there is room, whatever its axes are named. */
static void shape_of_long_names_is_cut(void **state) {
    (void)state;
    char name[3 * ATTNI_SHAPE_TEXT_BYTES];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const attni_axis axes[] = {{"N", 2}, {name, 3}, {"S", ATTNI_ANY_LENGTH}};
    const attn_tensor tensor = {.dtype = ATTN_DTYPE_FLOAT32, .rank = 1, .shape = {5}};
    assert_int_equal(attni_check_shape("x", &tensor, axes, 3), ATTN_ERROR_SHAPE);
    static const char beginning[] = "x: expected shape (N=2, nnn";
    assert_memory_equal(attn_last_error(), beginning, sizeof beginning - 1);
    assert_in_range(strlen(attn_last_error()), sizeof beginning, 2 * ATTNI_SHAPE_TEXT_BYTES + 60);
    attni_error_clear();
}

static bool broadcasts(const attn_tensor *tensor, int32_t count, const attni_axis *axes) {
    bool fits = tensor->rank <= count;
    for (int32_t axis = 0; fits && axis < tensor->rank; ++axis) {
        const int64_t length = tensor->shape[axis];
        fits = length == 1 || length == axes[count - tensor->rank + axis].length;
    }
    return fits;
}

static void assert_broadcast(const attn_tensor *tensor, int32_t count, const attni_axis *axes,
                             const int64_t *strides) {
    int64_t index[4] = {0};
    for (index[0] = 0; index[0] < axes[0].length; ++index[0]) {
        for (index[1] = 0; index[1] < axes[1].length; ++index[1]) {
            for (index[2] = 0; index[2] < axes[2].length; ++index[2]) {
                int64_t offset = 0;
                for (int32_t axis = 0; axis < count; ++axis) {
                    offset += index[axis] * strides[axis];
                }
                assert_int_equal(offset, broadcast_offset(tensor, count, index));
            }
        }
    }
}

static void broadcast_strides_agree_with_the_rule(void **state) {
    (void)state;
    random_state random = random_seeded(41);
    int num_fit = 0;
    for (int round = 0; round < 20000; ++round) {
        attni_axis axes[3];
        attn_tensor tensor = {.data = memory,
                              .dtype = ATTN_DTYPE_FLOAT32,
                              .rank = (int32_t)random_between(&random, 0, 4)};
        for (int axis = 0; axis < 3; ++axis) {
            axes[axis] = (attni_axis){NULL, random_between(&random, 0, 3)};
        }
        for (int32_t axis = 0; axis < tensor.rank; ++axis) {
            const int32_t place = axis + 3 - tensor.rank;
            const bool same = place >= 0 && random_between(&random, 0, 2) > 0;
            tensor.shape[axis] = same ? axes[place].length : random_between(&random, 0, 3);
            tensor.strides[axis] = random_between(&random, -9, 9);
        }
        int64_t strides[ATTN_MAX_RANK] = {99, 99, 99, 99, 99, 99, 99, 99};
        const bool fits = broadcasts(&tensor, 3, axes);
        assert_int_equal(attni_broadcast_strides("mask", &tensor, axes, 3, strides),
                         fits ? ATTN_OK : ATTN_ERROR_SHAPE);
        assert_int_equal(strides[3], 99);
        if (fits) {
            assert_broadcast(&tensor, 3, axes, strides);
            ++num_fit;
        }
    }
    assert_true(num_fit > 5000 && num_fit < 19000);
}

static void broadcast_refusal_names_both_shapes(void **state) {
    (void)state;
    const attni_axis axes[] = {{"L", 5}, {"S", 7}};
    const attn_tensor mask = float_view(2, (int64_t[]){5, 6});
    int64_t strides[2];
    attni_error_clear();
    assert_answer(attni_broadcast_strides("mask", &mask, axes, 2, strides), ATTN_ERROR_SHAPE,
                  "mask: expected a shape that broadcasts to (L=5, S=7), got (5, 6)");
}

/* ---- lengths ---- */

static void lengths_outside_are_found_at_every_place(void **state) {
    (void)state;
    int64_t numbers[24];
    attn_tensor lengths = {.data = numbers + 23,
                           .dtype = ATTN_DTYPE_INT64,
                           .rank = 3,
                           .shape = {2, 1, 3},
                           .strides = {-7, INT64_MAX, -2}};
    for (int i = 0; i < 24; ++i) {
        numbers[i] = -1;
    }
    for (int i = 0; i < 6; ++i) {
        numbers[23 - 7 * (i / 3) - 2 * (i % 3)] = i % 2 == 0 ? 0 : 9;
    }
    attni_error_clear();
    assert_answer(attni_check_lengths("key_lengths", &lengths, 9), ATTN_OK, "");
    for (int i = 0; i < 6; ++i) {
        static const int64_t wrong[] = {-1, 10, INT64_MIN, INT64_MAX};
        int64_t *number = &numbers[23 - 7 * (i / 3) - 2 * (i % 3)];
        const int64_t right = *number;
        *number = wrong[i % 4];
        char detail[100];
        snprintf(detail, sizeof detail, "key_lengths: expected 0 to S=9, got %lld at element %d",
                 (long long)wrong[i % 4], i);
        assert_answer(attni_check_lengths("key_lengths", &lengths, 9), ATTN_ERROR_VALUE, detail);
        *number = right;
    }
    lengths.shape[0] = 0;
    lengths.data = NULL;
    assert_answer(attni_check_lengths("key_lengths", &lengths, 0), ATTN_OK, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shape_text_of_any_rank_fits),
        cmocka_unit_test(dtype_names_are_those_of_the_enum),
        cmocka_unit_test(tensor_data_is_needed_only_where_there_are_elements),
        cmocka_unit_test(rank_impossible_is_a_value_else_a_shape_error),
        cmocka_unit_test(dtype_checks_accept_what_they_name),
        cmocka_unit_test(shape_named_axes_are_told),
        cmocka_unit_test(shape_of_long_names_is_cut),
        cmocka_unit_test(broadcast_strides_agree_with_the_rule),
        cmocka_unit_test(broadcast_refusal_names_both_shapes),
        cmocka_unit_test(lengths_outside_are_found_at_every_place),
    };
    return cmocka_run_group_tests_name("tensor_check", tests, NULL, NULL);
}
