/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_load.c: element types of files become the library's: the same values, or the nearest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "element_types.h"
#include "tensor_load.h"

static void load(const safetensors_entry *entry, int32_t dtype, owned_tensor *tensor) {
    char error[300] = "";
    if (tensor_load_values(entry, dtype, tensor, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

/* Numbers that every type holds, subnormal in none. */
static const double exact_values[] = {0, -0.0, 1, -1.5, 96, 0x1p-14, INFINITY, -INFINITY};
enum { EXACT_COUNT = sizeof exact_values / sizeof exact_values[0] };

static const int32_t floating_dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64,
                                          ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16};
enum { FLOATING_COUNT = sizeof floating_dtypes / sizeof floating_dtypes[0] };

static void every_type_becomes_every_type(void **state) {
    (void)state;
    for (int from = 0; from < FLOATING_COUNT; from++) {
        const element_type *stored = element_type_of(floating_dtypes[from]);
        char data[EXACT_COUNT * sizeof(double)];
        for (int i = 0; i < EXACT_COUNT; i++) {
            stored->write(data + (size_t)i * stored->bytes, exact_values[i]);
        }
        const safetensors_entry entry = {.name = "x",
                                         .dtype = stored->file_name,
                                         .rank = 2,
                                         .shape = {2, EXACT_COUNT / 2},
                                         .data = data,
                                         .data_bytes = EXACT_COUNT * stored->bytes};
        for (int to = 0; to < FLOATING_COUNT; to++) {
            owned_tensor tensor;
            load(&entry, floating_dtypes[to], &tensor);
            assert_int_equal(tensor.view.dtype, floating_dtypes[to]);
            assert_int_equal(tensor.view.rank, 2);
            assert_int_equal(tensor.view.shape[1], EXACT_COUNT / 2);
            for (int i = 0; i < EXACT_COUNT; i++) {
                double value = element_at(&tensor.view, i);
                assert_memory_equal(&value, &exact_values[i], sizeof value);
            }
            owned_tensor_free(&tensor);
        }
    }
}

static void values_round_to_sixteen_bits_once(void **state) {
    /* A tie, more than a tie by less than float32 can tell, subnormal numbers, overflow. */
    const double values[] = {1 + 0x1p-11, 1 + 0x1p-11 + 0x1p-40, 0x1p-24, 0x1p-25, 65520, -1e300};
    const uint16_t expected[] = {0x3c00, 0x3c01, 0x0001, 0x0000, 0x7c00, 0xfc00};
    owned_tensor tensor;
    (void)state;
    const safetensors_entry entry = {.name = "x",
                                     .dtype = "F64",
                                     .rank = 1,
                                     .shape = {6},
                                     .data = values,
                                     .data_bytes = sizeof values};
    load(&entry, ATTN_DTYPE_FLOAT16, &tensor);
    assert_memory_equal(tensor.memory, expected, sizeof expected);
    owned_tensor_free(&tensor);
}

static void equal_types_are_copied_bit_by_bit(void **state) {
    const uint16_t bits[] = {0x7f81, 0xffff, 0x8000, 0x0001}; /* two NaNs among them */
    owned_tensor tensor;
    (void)state;
    const safetensors_entry entry = {.name = "x",
                                     .dtype = "BF16",
                                     .rank = 1,
                                     .shape = {4},
                                     .data = bits,
                                     .data_bytes = sizeof bits};
    load(&entry, ATTN_DTYPE_BFLOAT16, &tensor);
    assert_memory_equal(tensor.memory, bits, sizeof bits);
    owned_tensor_free(&tensor);
}

static void float32_from_unaligned_data_is_the_same(void **state) {
    const float values[3] = {1.5F, -0.0F, INFINITY};
    char bytes[sizeof values + 1];
    owned_tensor tensor;
    (void)state;
    memcpy(bytes + 1, values, sizeof values);
    const safetensors_entry entry = {.name = "x",
                                     .dtype = "F32",
                                     .rank = 1,
                                     .shape = {3},
                                     .data = bytes + 1,
                                     .data_bytes = sizeof values};
    load(&entry, ATTN_DTYPE_FLOAT32, &tensor);
    assert_memory_equal(tensor.memory, values, sizeof values);
    owned_tensor_free(&tensor);
}

static void float64_rounds_to_the_nearest_float32(void **state) {
    const double values[3] = {0.1, 1e300, 1 + 0x1p-40};
    owned_tensor tensor;
    (void)state;
    const safetensors_entry entry = {.name = "x",
                                     .dtype = "F64",
                                     .rank = 1,
                                     .shape = {3},
                                     .data = values,
                                     .data_bytes = sizeof values};
    load(&entry, ATTN_DTYPE_FLOAT32, &tensor);
    const float *floats = tensor.memory;
    assert_true(floats[0] == 0.1F);
    assert_true(isinf(floats[1]));
    assert_true(floats[2] == 1.0F);
    owned_tensor_free(&tensor);
}

static void bool_and_empty_tensors_load(void **state) {
    const uint8_t bytes[2] = {0, 1};
    owned_tensor tensor;
    (void)state;
    const safetensors_entry mask = {
        .name = "m", .dtype = "BOOL", .rank = 1, .shape = {2}, .data = bytes, .data_bytes = 2};
    load(&mask, ATTN_DTYPE_BOOL, &tensor);
    assert_int_equal(tensor.view.dtype, ATTN_DTYPE_BOOL);
    assert_memory_equal(tensor.memory, bytes, 2);
    owned_tensor_free(&tensor);
    const safetensors_entry empty = {
        .name = "e", .dtype = "F32", .rank = 2, .shape = {0, 3}, .data = NULL, .data_bytes = 0};
    load(&empty, ATTN_DTYPE_FLOAT32, &tensor);
    assert_int_equal(tensor.view.shape[0], 0);
    owned_tensor_free(&tensor);
}

static void assert_refused(const safetensors_entry *entry, int32_t dtype, const char *expected) {
    char error[300] = "";
    owned_tensor tensor;
    assert_int_equal(tensor_load_values(entry, dtype, &tensor, error, sizeof error), -1);
    assert_null(tensor.memory);
    assert_string_equal(error, expected);
}

static void unusable_tensors_are_refused_by_name(void **state) {
    const uint8_t bytes[8] = {0};
    safetensors_entry entry = {
        .name = "x", .dtype = "I64", .rank = 1, .shape = {1}, .data = bytes, .data_bytes = 8};
    (void)state;
    assert_refused(&entry, ATTN_DTYPE_FLOAT32, "x: expected dtype F32, F64, F16 or BF16, got I64");
    entry.dtype = "F64";
    assert_refused(&entry, ATTN_DTYPE_BOOL, "x: expected dtype BOOL, got F64");
    entry.rank = SAFETENSORS_RANK_TOO_HIGH;
    assert_refused(&entry, ATTN_DTYPE_FLOAT32, "x: has more than 8 axes");
}

static void shape_text_is_cut_to_the_buffer(void **state) {
    const int64_t shape[3] = {3, 14, 384};
    char text[40];
    (void)state;
    assert_string_equal(shape_text(shape, 3, text, sizeof text), "(3, 14, 384)");
    assert_string_equal(shape_text(shape, 0, text, sizeof text), "()");
    memset(text, 'x', sizeof text);
    assert_string_equal(shape_text(shape, 3, text, 6), "(3, 1");
    assert_int_equal(text[6], 'x');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_becomes_every_type),
        cmocka_unit_test(values_round_to_sixteen_bits_once),
        cmocka_unit_test(equal_types_are_copied_bit_by_bit),
        cmocka_unit_test(float32_from_unaligned_data_is_the_same),
        cmocka_unit_test(float64_rounds_to_the_nearest_float32),
        cmocka_unit_test(bool_and_empty_tensors_load),
        cmocka_unit_test(unusable_tensors_are_refused_by_name),
        cmocka_unit_test(shape_text_is_cut_to_the_buffer),
    };
    return cmocka_run_group_tests_name("tensor_load", tests, NULL, NULL);
}
