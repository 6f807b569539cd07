/* SPDX-License-Identifier: BSD-3-Clause
 *
 * element_types.c: the table of element types, and numbers of 16 bits.
 *
 * bfloat16 and float16 are laid out alike: a sign, an exponent, `fraction_bits` bits of fraction.
 * All else follows: 15 - fraction_bits bits of exponent; its bias; an exponent of all ones for
 * infinities (fraction 0) and NaNs; and 2^lowest, the smallest subnormal number, of which numbers
 * with an exponent of 0 are multiples.
 */
#include "element_types.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Elements are little endian in files, and are read and written as they are in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors on a big-endian machine needs byte swapping");

enum { BFLOAT16_FRACTION_BITS = 7, FLOAT16_FRACTION_BITS = 10 };

/* ---- types of the compiler ---- */

static double read_float32(const void *element) {
    float value;
    memcpy(&value, element, sizeof value);
    return (double)value;
}

static void write_float32(void *element, double value) {
    const float rounded = (float)value;
    memcpy(element, &rounded, sizeof rounded);
}

static double read_float64(const void *element) {
    double value;
    memcpy(&value, element, sizeof value);
    return value;
}

static void write_float64(void *element, double value) {
    memcpy(element, &value, sizeof value);
}

static double read_bool(const void *element) {
    return *(const uint8_t *)element != 0;
}

static void write_bool(void *element, double value) {
    *(uint8_t *)element = value != 0;
}

/* ---- 16 bits ---- */

static int exponent_bias(int fraction_bits) {
    return (1 << (14 - fraction_bits)) - 1;
}

static int lowest_exponent(int fraction_bits) {
    return 1 - exponent_bias(fraction_bits) - fraction_bits;
}

/* Of all but subnormal numbers the fields move into those of a float64, which has 52 bits of
 * fraction and a bias of 1023. */
static double read_half(const void *element, int fraction_bits) {
    uint16_t half;
    memcpy(&half, element, sizeof half);
    const int all_ones = (1 << (15 - fraction_bits)) - 1;
    const int exponent = half >> fraction_bits & all_ones;
    const int fraction = half & ((1 << fraction_bits) - 1);
    const int is_negative = half >> 15;
    if (exponent == 0) {
        double magnitude = ldexp(fraction, lowest_exponent(fraction_bits));
        return is_negative ? -magnitude : magnitude;
    }
    const int wide_exponent =
        exponent == all_ones ? 2047 : exponent + 1023 - exponent_bias(fraction_bits);
    const uint64_t bits = (uint64_t)is_negative << 63 | (uint64_t)wide_exponent << 52 |
                          (uint64_t)fraction << (52 - fraction_bits);
    return read_float64(&bits);
}

/*
 * A finite number is counted in units, the spacing of the type's numbers around it, and rounded as
 * such. Units of 2^(lowest + n) stand n exponents higher than subnormal numbers; the leading one of
 * a normal number, bit fraction_bits of the count, adds the one that its exponent is higher still,
 * and a count that rounds up to the next power of two carries into the exponent likewise.
 */
static void write_half(void *element, double value, int fraction_bits) {
    const int infinity = 0x7fff >> fraction_bits << fraction_bits;
    const int quiet_nan = infinity | 1 << (fraction_bits - 1);
    const int lowest = lowest_exponent(fraction_bits);
    int bits = isnan(value) ? quiet_nan : infinity;
    if (value == 0) {
        bits = 0;
    } else if (isfinite(value)) {
        int exponent = 0;
        (void)frexp(value, &exponent); /* 2^(exponent - 1) <= |value| < 2^exponent */
        int unit = exponent - 1 - fraction_bits;
        unit = unit > lowest ? unit : lowest;
        int units = (int)nearbyint(ldexp(fabs(value), -unit));
        int rounded = ((unit - lowest) << fraction_bits) + units;
        bits = rounded < infinity ? rounded : infinity;
    }
    const uint16_t half = (uint16_t)(bits | (signbit(value) ? 0x8000 : 0));
    memcpy(element, &half, sizeof half);
}

static double read_bfloat16(const void *element) {
    return read_half(element, BFLOAT16_FRACTION_BITS);
}

static void write_bfloat16(void *element, double value) {
    write_half(element, value, BFLOAT16_FRACTION_BITS);
}

static double read_float16(const void *element) {
    return read_half(element, FLOAT16_FRACTION_BITS);
}

static void write_float16(void *element, double value) {
    write_half(element, value, FLOAT16_FRACTION_BITS);
}

/* ---- the table ---- */

static const element_type types[] = {
    {ATTN_DTYPE_FLOAT32, FLT_MANT_DIG, "F32", "float32", 4, (double)FLT_MAX, read_float32,
     write_float32},
    {ATTN_DTYPE_FLOAT64, DBL_MANT_DIG, "F64", "float64", 8, DBL_MAX, read_float64, write_float64},
    {ATTN_DTYPE_BFLOAT16, BFLOAT16_FRACTION_BITS + 1, "BF16", "bfloat16", 2, 0x1.fep127,
     read_bfloat16, write_bfloat16},
    {ATTN_DTYPE_FLOAT16, FLOAT16_FRACTION_BITS + 1, "F16", "float16", 2, 65504, read_float16,
     write_float16},
    {ATTN_DTYPE_BOOL, 0, "BOOL", "bool", 1, 1, read_bool, write_bool},
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

const element_type *element_type_of(int32_t dtype) {
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (types[i].dtype == dtype) {
            return &types[i];
        }
    }
    return NULL;
}

const element_type *element_type_in_file(const char *file_name) {
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(types[i].file_name, file_name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

double element_at(const attn_tensor *tensor, int64_t index) {
    const element_type *type = element_type_of(tensor->dtype);
    return type == NULL ? (double)NAN
                        : type->read((const char *)tensor->data + (size_t)index * type->bytes);
}
