/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_rms_norm.c: RMS normalisation, row by row. Where a long double is no wider than float64
 * its squares overflow, so rows are brought near 1 first.
 */
#include "support/oracle_rms_norm.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* The root of the mean of a row's squares and epsilon: NaN of a row with NaN, else infinite of one
 * with an infinity. */
static long double root_of(const double *row, int64_t count, double epsilon) {
    double largest = sqrt(epsilon);
    for (int64_t j = 0; j < count; ++j) {
        if (isnan(row[j])) {
            return (long double)NAN;
        }
        largest = fmax(largest, fabs(row[j]));
    }
    if (isinf(largest)) {
        return (long double)INFINITY;
    }
    const long double size = (long double)largest;
    long double sum = 0;
    for (int64_t j = 0; j < count; ++j) {
        const long double x = (long double)row[j] / size;
        sum += x * x;
    }
    return sqrtl(sum / (long double)count + (long double)epsilon / size / size) * size;
}

oracle_array oracle_rms_norm(const attn_tensor *input, const attn_rms_norm_params *given) {
    const attn_rms_norm_params params = given == NULL ? (attn_rms_norm_params){0} : *given;
    const int64_t num_cols = input->shape[input->rank - 1];
    const bound_rounding rounding = bound_rounding_of(input->dtype);
    const double unit = input->dtype == ATTN_DTYPE_FLOAT64 ? DBL_EPSILON : (double)FLT_EPSILON;
    oracle_array result = oracle_array_create(oracle_count(input->rank, input->shape));
    double *values = oracle_expand(input, input->rank, input->shape);
    double *weights = NULL;
    if (params.weight != NULL) {
        weights = oracle_expand(params.weight, input->rank, input->shape);
    }
    long double root = 1;
    for (int64_t i = 0; i < result.count; ++i) {
        if (i % num_cols == 0) {
            root = root_of(values + i, num_cols, params.epsilon == 0 ? unit : params.epsilon);
        }
        const long double weight =
            weights == NULL ? 1 : (long double)params.weight_offset + (long double)weights[i];
        result.value[i] = (double)((long double)values[i] / root * weight);
        result.error[i] =
            (rounding.unit + (double)(num_cols + 8) * 0x1p-53) * fabs(result.value[i]) +
            rounding.smallest * fabs((double)weight);
    }
    free(values);
    free(weights);
    return result;
}
