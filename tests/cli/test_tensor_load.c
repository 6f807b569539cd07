/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_load.c: element types of files become the library's, exactly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "tensor_load.h"

/* The value of a binary floating-point number of 16 bits, from its definition. */
static double value_of_half(uint16_t bits, int fraction_bits, int bias) {
    int exponent_bits = 15 - fraction_bits;
    int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    int fraction = bits & ((1 << fraction_bits) - 1);
    double sign = (bits & 0x8000) != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction != 0 ? NAN : sign * INFINITY;
    }
    if (exponent == 0) {
        return sign * ldexp(fraction, 1 - bias - fraction_bits);
    }
    return sign * ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

static void load(const safetensors_entry *entry, int32_t dtype, owned_tensor *tensor) {
    char error[300] = "";
    if (tensor_load_values(entry, dtype, tensor, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

static void assert_every_half_widens_exactly(const char *dtype, int fraction_bits, int bias) {
    enum { COUNT = 65536 };
    static uint16_t halves[COUNT];
    owned_tensor floats;
    owned_tensor doubles;
    for (int i = 0; i < COUNT; i++) {
        halves[i] = (uint16_t)i;
    }
    const safetensors_entry entry = {.name = "x",
                                     .dtype = dtype,
                                     .rank = 2,
                                     .shape = {256, 256},
                                     .data = halves,
                                     .data_bytes = sizeof halves};
    load(&entry, ATTN_DTYPE_FLOAT32, &floats);
    load(&entry, ATTN_DTYPE_FLOAT64, &doubles);
    assert_int_equal(floats.view.rank, 2);
    assert_int_equal(floats.view.shape[1], 256);
    for (int i = 0; i < COUNT; i++) {
        double expected = value_of_half((uint16_t)i, fraction_bits, bias);
        double as_float = (double)((const float *)floats.memory)[i];
        double as_double = ((const double *)doubles.memory)[i];
        int matches = isnan(expected) ? isnan(as_float) && isnan(as_double)
                                      : as_float == expected && as_double == expected &&
                                            signbit(as_double) == signbit(expected);
        if (!matches) {
            fail_msg("%s 0x%04x: expected %a, got %a and %a", dtype, (unsigned)i, expected,
                     as_float, as_double);
        }
    }
    owned_tensor_free(&floats);
    owned_tensor_free(&doubles);
}

static void float16_every_value_widens_exactly(void **state) {
    (void)state;
    assert_every_half_widens_exactly("F16", 10, 15);
}

static void bfloat16_every_value_widens_exactly(void **state) {
    (void)state;
    assert_every_half_widens_exactly("BF16", 7, 127);
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
        cmocka_unit_test(float16_every_value_widens_exactly),
        cmocka_unit_test(bfloat16_every_value_widens_exactly),
        cmocka_unit_test(float32_from_unaligned_data_is_the_same),
        cmocka_unit_test(float64_rounds_to_the_nearest_float32),
        cmocka_unit_test(bool_and_empty_tensors_load),
        cmocka_unit_test(unusable_tensors_are_refused_by_name),
        cmocka_unit_test(shape_text_is_cut_to_the_buffer),
    };
    return cmocka_run_group_tests_name("tensor_load", tests, NULL, NULL);
}
