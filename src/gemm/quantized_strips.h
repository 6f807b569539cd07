/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_strips.h: strips of int8 with a scale for each column: w(k, col) = scale[col] *
 * element(k, col). Strips are as in strips.h, of int8.
 *
 * A column's scale is max |w| / 127, rounded up to a float32, and its elements are the nearest to w
 * / scale, ties to even, -127 to 127: so what is read back is off by half a scale at most. A column
 * of zeroes has scale 0; one with an infinity or a NaN has scale NaN, and elements 0.
 */
#ifndef ATTNI_GEMM_QUANTIZED_STRIPS_H
#define ATTNI_GEMM_QUANTIZED_STRIPS_H

#include <stdint.h>

#include <attention/tensor.h>

/* What becomes of one column's numbers: its scale, for which all of them are shown, then each
 * one's element. Begins as all zeroes. */
typedef struct attni_column_range {
    float largest; /* |w| */
    float zeros;   /* the sum of w * 0: 0 of finite numbers only */
} attni_column_range;

static inline void attni_column_show(attni_column_range *range, float w) {
    const float size = w < 0 ? -w : w;
    range->largest = size > range->largest ? size : range->largest;
    range->zeros += w * 0;
}

float attni_column_scale(const attni_column_range *range);
int8_t attni_column_element(float w, float scale);

/* The strips and scales of the transpose of a (cols, inner) matrix of any float type, float64 as
 * rounded to float32. `strips` has attni_strips_round_up(cols) * inner elements, scales has cols. */
void attni_strips_quantize(char *strips, float *scales, const attn_tensor *matrix);

/* And back, to a float32 matrix of any layout: each product rounded once. */
void attni_strips_dequantize(const attn_tensor *matrix, const char *strips, const float *scales);

#endif
