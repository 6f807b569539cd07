/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_kernels.h: rows of integers as the float32 that they mean. Elements may have any
 * alignment; strides count elements. n counts values and is a whole number of elements.
 */
#ifndef ATTNI_KERNELS_QUANTIZED_KERNELS_H
#define ATTNI_KERNELS_QUANTIZED_KERNELS_H

#include <stdint.h>

/* to[j] = (value j of from - zeros[j]) * scales[j], for j < n: each operation rounded once. */
typedef void attni_dequantize_fn(float *to, const void *from, int64_t stride, int64_t n,
                                 const float *scales, const float *zeros);

typedef struct attni_quantized_kernels {
    attni_dequantize_fn *int8;
    attni_dequantize_fn *uint8;
    attni_dequantize_fn *int4x2;
    attni_dequantize_fn *uint4x2;

    /* Blocks have their own scale; scales and zeros are not looked at. */
    attni_dequantize_fn *q8_0;
    attni_dequantize_fn *q4_0;
} attni_quantized_kernels;

#endif
