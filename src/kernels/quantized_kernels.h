/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_kernels.h: rows of integers as the float32 that they mean. Elements may have any
 * alignment; strides count elements. n counts values and is a whole number of elements.
 */
#ifndef ATTNI_KERNELS_QUANTIZED_KERNELS_H
#define ATTNI_KERNELS_QUANTIZED_KERNELS_H

#include <stdint.h>

/* Scales and zeros of n values: value j has number j / alike of each. alike is 1, or more than n, or
 * makes whole elements. */
typedef struct attni_value_numbers {
    const float *scales;
    const float *zeros;
    int64_t alike;
} attni_value_numbers;

/* to[j] = (value j of from - its zero) * its scale, for j < n: each operation rounded once. */
typedef void attni_dequantize_fn(float *to, const void *from, int64_t stride, int64_t n,
                                 attni_value_numbers numbers);

typedef struct attni_quantized_kernels {
    attni_dequantize_fn *int8;
    attni_dequantize_fn *uint8;
    attni_dequantize_fn *int4x2;
    attni_dequantize_fn *uint4x2;

    /* Blocks have their own scale; numbers are not looked at. */
    attni_dequantize_fn *q8_0;
    attni_dequantize_fn *q4_0;
} attni_quantized_kernels;

#endif
