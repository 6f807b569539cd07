/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_element_types.c: every number of 16 bits is read exactly, and whatever lies between two of
 * them is written as the nearer one.
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

/* A format of 16 bits as IEEE 754 defines one. */
typedef struct half_format {
    const char *file_name;
    int fraction_bits;
    int bias;
} half_format;

static const half_format formats[] = {{"BF16", 7, 127}, {"F16", 10, 15}};
enum { FORMAT_COUNT = sizeof formats / sizeof formats[0] };

/* The value of these bits, from the definition. */
static double value_of_half(const half_format *format, uint16_t bits) {
    int exponent_bits = 15 - format->fraction_bits;
    int exponent = bits >> format->fraction_bits & ((1 << exponent_bits) - 1);
    int fraction = bits & ((1 << format->fraction_bits) - 1);
    double sign = (bits & 0x8000) != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction != 0 ? NAN : sign * INFINITY;
    }
    if (exponent == 0) {
        return sign * ldexp(fraction, 1 - format->bias - format->fraction_bits);
    }
    return sign * ldexp((1 << format->fraction_bits) + fraction,
                        exponent - format->bias - format->fraction_bits);
}

static uint16_t infinity_of(const half_format *format) {
    return (uint16_t)(0x7fff >> format->fraction_bits << format->fraction_bits);
}

static void assert_written(const half_format *format, double value, uint16_t expected) {
    uint16_t bits = 0x5555;
    element_type_in_file(format->file_name)->write(&bits, value);
    if (bits != expected) {
        fail_msg("%s of %a: expected 0x%04x, got 0x%04x", format->file_name, value,
                 (unsigned)expected, (unsigned)bits);
    }
}

/* Of a number and its negative. */
static void assert_both_written(const half_format *format, double magnitude, uint16_t expected) {
    assert_written(format, magnitude, expected);
    assert_written(format, -magnitude, (uint16_t)(expected | 0x8000));
}

static void halves_are_read_exactly_and_written_back(void **state) {
    (void)state;
    for (int f = 0; f < FORMAT_COUNT; f++) {
        const element_type *type = element_type_in_file(formats[f].file_name);
        for (int i = 0; i < 65536; i++) {
            const uint16_t bits = (uint16_t)i;
            double expected = value_of_half(&formats[f], bits);
            double value = type->read(&bits);
            int matches = isnan(expected)
                              ? isnan(value)
                              : value == expected && signbit(value) == signbit(expected);
            if (!matches) {
                fail_msg("%s 0x%04x: expected %a, got %a", type->file_name, (unsigned)bits,
                         expected, value);
            }
            if (!isnan(expected)) {
                assert_written(&formats[f], expected, bits);
            }
        }
    }
}

/* Between every two neighbours, subnormal ones and the step to infinity included: half way to the
 * even one, and the least bit off the half to the nearer one. */
static void halves_round_to_nearest_and_ties_to_even(void **state) {
    (void)state;
    for (int f = 0; f < FORMAT_COUNT; f++) {
        const uint16_t infinity = infinity_of(&formats[f]);
        for (uint16_t low = 0; low < infinity; low++) {
            const uint16_t high = (uint16_t)(low + 1);
            double below = value_of_half(&formats[f], low);
            /* Infinity stands where the number after the largest would. */
            double step = high < infinity ? value_of_half(&formats[f], high) - below
                                          : below - value_of_half(&formats[f], (uint16_t)(low - 1));
            double middle = below + step / 2;
            assert_both_written(&formats[f], middle, (low & 1) == 0 ? low : high);
            assert_both_written(&formats[f], nextafter(middle, 0), low);
            assert_both_written(&formats[f], nextafter(middle, INFINITY), high);
        }
    }
}

static void halves_out_of_range_are_infinite_and_nan_stays(void **state) {
    (void)state;
    for (int f = 0; f < FORMAT_COUNT; f++) {
        const element_type *type = element_type_in_file(formats[f].file_name);
        const uint16_t infinity = infinity_of(&formats[f]);
        uint16_t bits = 0;
        assert_true(value_of_half(&formats[f], (uint16_t)(infinity - 1)) == type->largest);
        assert_both_written(&formats[f], type->largest, (uint16_t)(infinity - 1));
        assert_both_written(&formats[f], 1e300, infinity);
        assert_both_written(&formats[f], 0x1.fffffffffffffp1023, infinity);
        assert_both_written(&formats[f], 0x1p-1074, 0);
        type->write(&bits, NAN);
        assert_true(isnan(value_of_half(&formats[f], bits)));
        type->write(&bits, -NAN);
        assert_true(isnan(value_of_half(&formats[f], bits)));
    }
}

/* By way of float32 the first would be rounded down to a tie, and that to even. */
static void halves_round_once(void **state) {
    (void)state;
    assert_both_written(&formats[0], 1 + 0x1p-8 + 0x1p-40, 0x3f81);
    assert_both_written(&formats[1], 1 + 0x1p-11 + 0x1p-40, 0x3c01);
}

static void wide_types_hold_what_they_are_given(void **state) {
    static const double values[] = {0, -0.0, 1.5, -3, 0x1p-126, INFINITY, -INFINITY};
    static const char *const names[] = {"F32", "F64"};
    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        const element_type *type = element_type_in_file(names[n]);
        char bytes[1 + sizeof(double)]; /* written and read at an odd address */
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            type->write(bytes + 1, values[i]);
            double value = type->read(bytes + 1);
            assert_memory_equal(&value, &values[i], sizeof value);
        }
        type->write(bytes + 1, 0.1);
        assert_true(type->read(bytes + 1) == (n == 0 ? (double)0.1F : 0.1));
    }
}

static void bool_is_whether_a_byte_is_not_zero(void **state) {
    const element_type *type = element_type_in_file("BOOL");
    const uint8_t odd = 255;
    uint8_t byte = 7;
    (void)state;
    assert_true(type->read(&odd) == 1);
    type->write(&byte, -0.0);
    assert_int_equal(byte, 0);
    assert_true(type->read(&byte) == 0);
    type->write(&byte, 0.25);
    assert_int_equal(byte, 1);
}

static void table_agrees_with_the_library(void **state) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                                     ATTN_DTYPE_FLOAT16, ATTN_DTYPE_BOOL};
    (void)state;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        const element_type *type = element_type_of(dtypes[i]);
        assert_non_null(type);
        assert_int_equal(type->dtype, dtypes[i]);
        assert_int_equal(type->bytes, attn_dtype_size_bytes(dtypes[i]));
        assert_ptr_equal(element_type_in_file(type->file_name), type);
        if (type->precision > 0) {
            /* 1 has a neighbour 2^(1 - precision) above, and nothing is between. */
            char bytes[sizeof(double)];
            type->write(bytes, 1 + ldexp(1, 1 - type->precision));
            assert_true(type->read(bytes) == 1 + ldexp(1, 1 - type->precision));
            type->write(bytes, 1 + ldexp(1, -type->precision));
            assert_true(type->read(bytes) == 1);
        }
    }
    assert_null(element_type_of(ATTN_DTYPE_INVALID));
    assert_null(element_type_of(ATTN_DTYPE_INT64));
    assert_null(element_type_in_file("I64"));
    assert_null(element_type_in_file(""));
}

static void element_at_counts_in_elements(void **state) {
    uint16_t halves[3] = {0x3c00, 0x4000, 0xc400};
    attn_tensor view;
    (void)state;
    assert_int_equal(attn_tensor_init(&view, halves, ATTN_DTYPE_FLOAT16, 1, (const int64_t[]){3}),
                     ATTN_OK);
    assert_true(element_at(&view, 0) == 1);
    assert_true(element_at(&view, 1) == 2);
    assert_true(element_at(&view, 2) == -4);
    view.dtype = ATTN_DTYPE_INT8;
    assert_true(isnan(element_at(&view, 0)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_read_exactly_and_written_back),
        cmocka_unit_test(halves_round_to_nearest_and_ties_to_even),
        cmocka_unit_test(halves_out_of_range_are_infinite_and_nan_stays),
        cmocka_unit_test(halves_round_once),
        cmocka_unit_test(wide_types_hold_what_they_are_given),
        cmocka_unit_test(bool_is_whether_a_byte_is_not_zero),
        cmocka_unit_test(table_agrees_with_the_library),
        cmocka_unit_test(element_at_counts_in_elements),
    };
    return cmocka_run_group_tests_name("element_types", tests, NULL, NULL);
}
