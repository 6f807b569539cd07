/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_bound.c: magnitudes of inputs, and the rounding bound made of them.
 */
#include "golden_bound.h"

#include <math.h>

#include "golden_case.h"

double golden_magnitude(const attn_tensor *view) {
    const int64_t count = golden_count(view);
    double largest = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double magnitude = fabs(golden_value(view, i));
        largest = isinf(magnitude) ? largest : fmax(largest, magnitude);
    }
    return largest;
}

double golden_row_norm(const attn_tensor *view) {
    const int64_t count = golden_count(view);
    const int64_t length = view->shape[view->rank - 1];
    double largest = 0;
    double squares = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double value = golden_value(view, i);
        squares = i % length == 0 ? value * value : squares + value * value;
        largest = fmax(largest, squares);
    }
    return sqrt(largest);
}

double golden_row_sum(const attn_tensor *view) {
    const int64_t count = golden_count(view);
    const int64_t length = view->shape[view->rank - 1];
    double largest = 0;
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double magnitude = fabs(golden_value(view, i));
        sum = i % length == 0 ? magnitude : sum + magnitude;
        largest = fmax(largest, sum);
    }
    return largest;
}

double golden_projected_magnitude(const attn_tensor *x, const attn_tensor *weight,
                                  const attn_tensor *bias) {
    const int64_t in = weight->shape[1];
    const int64_t rows = in > 0 ? golden_count(x) / in : 0;
    double largest = 0;
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t out = 0; out < weight->shape[0]; ++out) {
            double sum = bias != NULL ? fabs(golden_value(bias, out)) : 0;
            for (int64_t i = 0; i < in; ++i) {
                sum += fabs(golden_value(x, row * in + i) * golden_value(weight, out * in + i));
            }
            largest = fmax(largest, sum);
        }
    }
    return largest;
}

double golden_rounding_bound(int32_t dtype, int64_t terms, double score, double magnitude) {
    const double unit = dtype == ATTN_DTYPE_FLOAT64 ? 0x1p-53 * 2 : 0x1p-24;
    return 8 * (double)terms * unit * (1 + score) * magnitude;
}
