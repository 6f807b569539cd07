/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_parameters.c: parameters as a layer keeps them.
 */
#include "support/oracle_parameters.h"

#include <math.h>

/* One row of a weight as integers times max |w| / 127, rounded up to a float32. */
static void quantize_row(double *row, int64_t columns) {
    double largest = 0;
    for (int64_t c = 0; c < columns; ++c) {
        row[c] = oracle_rounded(ATTN_DTYPE_FLOAT32, row[c]);
        largest = fmax(largest, fabs(row[c]));
    }
    const double exact = largest / 127;
    double scale = oracle_rounded(ATTN_DTYPE_FLOAT32, exact);
    scale = scale < exact ? (double)nextafterf((float)scale, INFINITY) : scale;
    for (int64_t c = 0; c < columns && scale > 0; ++c) {
        row[c] = nearbyint(row[c] / scale) * scale;
    }
}

static void scale_row(const attn_tensor *scale, int64_t row, double *integers, int64_t columns) {
    const int64_t index[] = {row, 0};
    const double factor = oracle_rounded(ATTN_DTYPE_FLOAT32, oracle_element(scale, index));
    for (int64_t c = 0; c < columns; ++c) {
        integers[c] *= factor;
    }
}

void oracle_keep_parameter(const oracle_parameter *parameter, int32_t dtype, double *values) {
    const attn_tensor *shape = &parameter->values;
    const int64_t count = oracle_count(shape->rank, shape->shape);
    const int is_quantized = dtype == ATTN_DTYPE_INT8 && shape->rank == 2;
    for (int64_t i = 0; i < count && !is_quantized; ++i) {
        values[i] =
            oracle_rounded(dtype == ATTN_DTYPE_INT8 ? ATTN_DTYPE_FLOAT32 : dtype, values[i]);
    }
    for (int64_t r = 0; is_quantized && r < shape->shape[0]; ++r) {
        double *row = values + r * shape->shape[1];
        if (shape->dtype == ATTN_DTYPE_INT8) {
            scale_row(&parameter->scale, r, row, shape->shape[1]);
        } else {
            quantize_row(row, shape->shape[1]);
        }
    }
}
