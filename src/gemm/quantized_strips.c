/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_strips.c: a column at a time, twice: for its scale, and for its elements. Quotients are
 * float64, so that an element is the nearest to the number and not to a rounded quotient.
 */
#include "gemm/quantized_strips.h"

#include <math.h>
#include <string.h>

#include "gemm/strips.h"
#include "tensor/element.h"

enum { LARGEST = 127 };

float attni_column_scale(const attni_column_range *range) {
    if (range->zeros != 0) { /* NaN */
        return NAN;
    }
    const double exact = (double)range->largest / LARGEST;
    float scale = (float)exact;
    if ((double)scale < exact) {
        uint32_t bits;
        memcpy(&bits, &scale, sizeof bits);
        ++bits; /* the next larger number's */
        memcpy(&scale, &bits, sizeof scale);
    }
    return scale;
}

int8_t attni_column_element(float w, float scale) {
    if (!(scale > 0)) {
        return 0;
    }
    return (int8_t)rint((double)w / (double)scale);
}

/* A float64 that is rounded to infinity makes its column NaN. */
static float number_at(const attn_tensor *matrix, int64_t row, int64_t k) {
    return (float)attni_read_real(matrix->data, row * matrix->strides[0] + k * matrix->strides[1],
                                  matrix->dtype);
}

void attni_strips_quantize(char *strips, float *scales, const attn_tensor *matrix) {
    const int64_t inner = matrix->shape[1];
    const int64_t width = attni_strip_cols(ATTN_DTYPE_INT8);
    memset(strips, 0, (size_t)(attni_strips_round_up(ATTN_DTYPE_INT8, matrix->shape[0]) * inner));
    for (int64_t row = 0; row < matrix->shape[0]; ++row) {
        attni_column_range range = {0};
        for (int64_t k = 0; k < inner; ++k) {
            attni_column_show(&range, number_at(matrix, row, k));
        }
        scales[row] = attni_column_scale(&range);
        char *elements = strips + attni_strips_offset(ATTN_DTYPE_INT8, inner, 0, row);
        for (int64_t k = 0; k < inner; ++k) {
            elements[k * width] =
                (char)attni_column_element(number_at(matrix, row, k), scales[row]);
        }
    }
}

void attni_strips_dequantize(const attn_tensor *matrix, const char *strips, const float *scales) {
    const int64_t inner = matrix->shape[1];
    const int64_t width = attni_strip_cols(ATTN_DTYPE_INT8);
    for (int64_t row = 0; row < matrix->shape[0]; ++row) {
        const int8_t *elements =
            (const int8_t *)strips + attni_strips_offset(ATTN_DTYPE_INT8, inner, 0, row);
        for (int64_t k = 0; k < inner; ++k) {
            const float number = scales[row] * (float)elements[k * width];
            attni_write_real(matrix->data, row * matrix->strides[0] + k * matrix->strides[1],
                             ATTN_DTYPE_FLOAT32, (double)number);
        }
    }
}
