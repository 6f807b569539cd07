/* SPDX-License-Identifier: BSD-3-Clause
 *
 * feature_kernels.h: what is done to the features of queries and keys before attention: RMS
 * normalisation and rotation by position.
 *
 * A row is n >= 0 consecutive elements (float32 or float64, at any alignment); `to` may be `from`.
 * Kernels get raw pointers and sizes that the caller has checked; they cannot fail and do not
 * allocate. An element is computed the same way wherever it stands.
 */
#ifndef ATTNI_KERNELS_FEATURE_KERNELS_H
#define ATTNI_KERNELS_FEATURE_KERNELS_H

#include <stdint.h>

typedef struct attni_feature_kernels {
    /* The sum of (factor * row[j])^2, in float64. */
    double (*square_sum)(const void *row, int64_t n, double factor);

    /* to[j] = factor * from[j] * scale * (offset + weights[j]), or without weights what is before
     * them; in float64, rounded once. */
    void (*normalize)(void *to, const void *from, int64_t n, double factor, double scale,
                      const void *weights, double offset);

    /* The gradient of such a row, whose normalised elements are x^[j] = factor * row[j] * scale, in
     * float64. The first is the sum of x^[j] * gradient[j] * (offset + weights[j]); with that over
     * all elements of a row, divided by their number, as `mean`, the second is
     * to[j] = factor * scale * (gradient[j] * (offset + weights[j]) - x^[j] * mean), rounded once;
     * sums[j] += gradient[j] * x^[j]. `to` may be `gradient`. */
    double (*normalized_dot)(const void *row, const void *gradient, int64_t n, double factor,
                             double scale, const void *weights, double offset);
    void (*normalize_back)(void *to, double *sums, const void *row, const void *gradient, int64_t n,
                           double factor, double scale, const void *weights, double offset,
                           double mean);

    /* cosines[i] = cosine_factor * cos(position * frequencies[i]), sines[i] likewise, for i < n:
     * within 2^-52 of the cosine of the product, which is rounded to float64, times the factor,
     * before they are rounded to the element type. */
    void (*turns)(void *cosines, void *sines, double position, const double *frequencies, int64_t n,
                  double cosine_factor, double sine_factor);

    /* Pairs (first[i], second[i]), i < n, turned:
     * to_first[i]  = first[i] * cosines[i] - second[i] * sines[i]
     * to_second[i] = second[i] * cosines[i] + first[i] * sines[i] */
    void (*rotate_halves)(void *to_first, void *to_second, const void *first, const void *second,
                          const void *cosines, const void *sines, int64_t n);

    /* The same for the pairs (from[2 i], from[2 i + 1]). */
    void (*rotate_neighbours)(void *to, const void *from, const void *cosines, const void *sines,
                              int64_t n);
} attni_feature_kernels;

#endif
