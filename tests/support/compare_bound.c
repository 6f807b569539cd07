/* SPDX-License-Identifier: BSD-3-Clause
 *
 * compare_bound.c: the formulas of the error bound that compare.h derives.
 */
#include <float.h>
#include <math.h>

#include "support/compare.h"

bound_rounding bound_rounding_of(int32_t dtype) {
    const double oracle_unit = 0x1p-53;
    if (dtype != ATTN_DTYPE_FLOAT64) {
        return (bound_rounding){0x1p-24 + oracle_unit, FLT_MIN, (double)FLT_MAX};
    }
    return (bound_rounding){0x1p-53 + oracle_unit, DBL_MIN, DBL_MAX};
}

double bound_product(double x, double x_error, double y, double y_error) {
    return fabs(x) * y_error + x_error * fabs(y) + x_error * y_error;
}

double bound_dot(bound_rounding rounding, int64_t terms, double magnitude) {
    return (double)(terms + 4) * (rounding.unit * magnitude + rounding.smallest);
}

double bound_softcap(bound_rounding rounding, double score_error, double score, double capped) {
    return score_error + rounding.unit * (fabs(score) + 8 * fabs(capped)) + rounding.smallest;
}

double bound_added(bound_rounding rounding, int additions, double magnitude) {
    return additions * rounding.unit * magnitude;
}

double finite_sum(double x, double y, double largest) {
    const double sum = x + y;
    return isfinite(x) && isfinite(y) ? fmax(-largest, fmin(sum, largest)) : sum;
}

/* exp(log_weight + error) - exp(log_weight), without cancellation where the error is small and
 * without overflow where it is large. */
static double growth(double log_weight, double error) {
    if (log_weight == -INFINITY) {
        return 0;
    }
    return error < 1 ? exp(log_weight) * expm1(error) : exp(log_weight + error) - exp(log_weight);
}

static double shrinkage(double log_weight, double error) {
    return -exp(log_weight) * expm1(-error);
}

double bound_sigmoid(bound_rounding rounding, double weight, double score_error) {
    const double grown = fmin(growth(log(weight), score_error), 1 - weight);
    const double spread = fmax(grown, shrinkage(log(weight), score_error));
    return spread + 8 * rounding.unit * (weight + spread) + rounding.smallest;
}

double bound_softmax_row(bound_rounding rounding, int64_t count, const double *log_weight,
                         const double *score_error, double *weight_error) {
    double sum_growth = 0, sum_shrinkage = 0;
    for (int64_t j = 0; j < count; ++j) {
        sum_growth += growth(log_weight[j], score_error[j]);
        sum_shrinkage += shrinkage(log_weight[j], score_error[j]);
    }
    const double lse_rise = log1p(sum_growth);
    const double lse_fall = sum_shrinkage < 1 ? -log1p(-sum_shrinkage) : INFINITY;
    const double relative = (double)(count + 8) * rounding.unit;
    for (int64_t j = 0; j < count; ++j) {
        weight_error[j] = 0;
        if (log_weight[j] > -INFINITY) {
            const double weight = exp(log_weight[j]);
            const double grown = fmin(growth(log_weight[j], score_error[j] + lse_fall), 1 - weight);
            const double spread = fmax(grown, shrinkage(log_weight[j], score_error[j] + lse_rise));
            weight_error[j] = spread + relative * (weight + spread) + rounding.smallest;
        }
    }
    return fmax(lse_rise, lse_fall) + relative;
}

double bound_logarithm(bound_rounding rounding, double maximum, double lse) {
    return 4 * rounding.unit * (fabs(maximum) + fabs(lse));
}
