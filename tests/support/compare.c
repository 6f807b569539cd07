/* SPDX-License-Identifier: BSD-3-Clause
 *
 * compare.c: whole tensors against expected values, with a message that names the first difference.
 */
#include "support/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support/half_numbers.h"

/* "name[1, 0, 3]" */
static void element_name(const char *name, const attn_tensor *tensor, const int64_t *index,
                         char *text, size_t text_bytes) {
    size_t used = (size_t)snprintf(text, text_bytes, "%s[", name);
    for (int32_t axis = 0; axis < tensor->rank && used < text_bytes; ++axis) {
        used += (size_t)snprintf(text + used, text_bytes - used, "%s%lld", axis > 0 ? ", " : "",
                                 (long long)index[axis]);
    }
    if (used < text_bytes) {
        snprintf(text + used, text_bytes - used, "]");
    }
}

/* Bounds below say no more than that a number too small for float32 may become 0; such an error
 * uses up its bound. */
static const double UNDERFLOW_BOUND = 1e-36;

/* Bounds above come from scores so large that their rounding is a matter of many units: ALiBi at a
 * distance of 2^62, -1e30 everywhere. */
static const double LOOSE_BOUND = 1e-2;

static int is_close(double actual, double expected, double bound, compare_stats *stats) {
    stats->num_not_finite += !isfinite(expected);
    if (isnan(expected)) {
        return isnan(actual);
    }
    if (isnan(bound)) {
        ++stats->num_open;
        return 1;
    }
    if (isinf(expected)) {
        return actual == expected;
    }
    const double error = fabs(actual - expected);
    const int is_loose = bound > LOOSE_BOUND * (1 + fabs(expected));
    stats->num_loose += is_loose;
    if (!is_loose && bound > UNDERFLOW_BOUND) {
        stats->largest_ratio = fmax(stats->largest_ratio, error / bound);
    }
    return error <= bound;
}

/* What storing a result as a narrow type adds to its error; whether it may become infinite. */
static double stored_bound(int32_t dtype, double expected, double bound, double actual) {
    if (!half_is(dtype) || !isfinite(expected) || isnan(bound)) {
        return bound;
    }
    const double largest = largest_of_dtype(dtype);
    const double reach = fabs(expected) + bound;
    const double towards = actual > 0 ? expected + bound : bound - expected;
    if (towards >= largest + half_step(dtype, largest) && isinf(actual)) {
        return INFINITY;
    }
    return bound + half_step(dtype, fmin(reach, largest));
}

int compare_tensor(const char *name, const attn_tensor *actual, const oracle_array *expected,
                   compare_stats *stats, char *message, size_t message_bytes) {
    const int64_t count = oracle_count(actual->rank, actual->shape);
    int64_t index[ATTN_MAX_RANK] = {0};
    if (count != expected->count) {
        snprintf(message, message_bytes, "%s has %lld elements, expected %lld", name,
                 (long long)count, (long long)expected->count);
        return 1;
    }
    for (int64_t i = 0; i < count; ++i) {
        const double found = oracle_element(actual, index);
        const double bound =
            stored_bound(actual->dtype, expected->value[i], expected->error[i], found);
        ++stats->num_elements;
        if (!is_close(found, expected->value[i], bound, stats)) {
            char element[160];
            element_name(name, actual, index, element, sizeof element);
            snprintf(message, message_bytes, "%s: expected %.17g within %.3g, got %.17g", element,
                     expected->value[i], bound, found);
            return 1;
        }
        oracle_next_index(actual->rank, actual->shape, index);
    }
    return 0;
}

int compare_same_bits(const char *name, const attn_tensor *actual, const attn_tensor *expected,
                      char *message, size_t message_bytes) {
    const int64_t count = oracle_count(actual->rank, actual->shape);
    const size_t element_bytes = attn_dtype_size_bytes(actual->dtype);
    int64_t index[ATTN_MAX_RANK] = {0};
    for (int64_t i = 0; i < count; ++i) {
        if (memcmp(oracle_address(actual, index), oracle_address(expected, index), element_bytes) !=
            0) {
            char element[160];
            element_name(name, actual, index, element, sizeof element);
            snprintf(message, message_bytes, "%s: expected the bits of %.17g, got %.17g", element,
                     oracle_element(expected, index), oracle_element(actual, index));
            return 1;
        }
        oracle_next_index(actual->rank, actual->shape, index);
    }
    return 0;
}
