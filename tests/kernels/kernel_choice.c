/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kernel_choice.c: the list of kernels, and arithmetic in their element types.
 */
#include "kernel_choice.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <attention/tensor.h>

bool choose_kernels(int index, kernel_choice *choice) {
    const attni_kernel_set *set = attni_kernel_set_at(index / 2);
    if (set == NULL) {
        return false;
    }
    choice->name = set->name;
    choice->dtype = index % 2 == 0 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64;
    choice->kernels = attni_kernels_of(set, choice->dtype);
    choice->product = attni_product_kernels_of(set, choice->dtype);
    choice->gradient = attni_gradient_kernels_of(set, choice->dtype);
    return true;
}

const char *choice_text(const kernel_choice *choice) {
    static char text[60];
    snprintf(text, sizeof text, "%s %s", choice->name,
             choice->dtype == ATTN_DTYPE_FLOAT32 ? "float32" : "float64");
    return text;
}

int64_t real_bytes(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? 4 : 8;
}

double rounded_to(int32_t dtype, double value) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)(float)value : value;
}

double row_get(const char *row, int64_t i, int32_t dtype) {
    if (dtype == ATTN_DTYPE_FLOAT32) {
        float value;
        memcpy(&value, row + i * 4, sizeof value);
        return (double)value;
    }
    double value;
    memcpy(&value, row + i * 8, sizeof value);
    return value;
}

void row_set(char *row, int64_t i, int32_t dtype, double value) {
    if (dtype == ATTN_DTYPE_FLOAT32) {
        const float single = (float)value;
        memcpy(row + i * 4, &single, sizeof single);
    } else {
        memcpy(row + i * 8, &value, sizeof value);
    }
}

double smallest_normal(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MIN : DBL_MIN;
}

double unit_roundoff(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? 0x1p-24 : 0x1p-53;
}

double error_in_ulp(int32_t dtype, double actual, long double exact) {
    int exponent;
    const long double magnitude = fabsl(exact);
    const long double lowest = (long double)smallest_normal(dtype);
    frexpl(magnitude > lowest ? magnitude : lowest, &exponent);
    const long double ulp =
        ldexpl(1.0L, exponent - (dtype == ATTN_DTYPE_FLOAT32 ? FLT_MANT_DIG : DBL_MANT_DIG));
    return (double)(fabsl((long double)actual - exact) / ulp);
}

bool is_same_number(double a, double b) {
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

double random_number(random_state *random, int32_t dtype) {
    const bool is_single = dtype == ATTN_DTYPE_FLOAT32;
    const double specials[] = {
        NAN,
        (double)INFINITY,
        -(double)INFINITY,
        0.0,
        -0.0,
        smallest_normal(dtype),
        -smallest_normal(dtype),
        is_single ? 0x1p-149 : 0x1p-1074,
        is_single ? -0x1.234p-130 : -0x1.234p-1030,
        is_single ? (double)FLT_MAX : DBL_MAX,
        is_single ? -(double)FLT_MAX : -DBL_MAX,
        1e-6,
        -1e30,
    };
    const int64_t choice = random_between(random, 0, 99);
    if (choice < (int64_t)(sizeof specials / sizeof specials[0])) {
        return rounded_to(dtype, specials[choice]);
    }
    return rounded_to(dtype, random_real(random, -10, 10));
}

int64_t row_length(int index) {
    static const int64_t longer[] = {127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025};
    const int num_short = 67;
    const int num_longer = sizeof longer / sizeof longer[0];
    return index < num_short                ? index
           : index < num_short + num_longer ? longer[index - num_short]
                                            : -1;
}
