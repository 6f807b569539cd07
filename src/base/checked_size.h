/* SPDX-License-Identifier: BSD-3-Clause
 *
 * checked_size.h: arithmetic on sizes and positions that cannot wrap around.
 */
#ifndef ATTNI_BASE_CHECKED_SIZE_H
#define ATTNI_BASE_CHECKED_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *result = a * b; false (and *result some other number) if it does not fit. */
static inline bool attni_multiply(int64_t a, int64_t b, int64_t *result) {
    return !__builtin_mul_overflow(a, b, result);
}

/* *result = a + b; false (and *result some other number) if it does not fit. */
static inline bool attni_add(int64_t a, int64_t b, int64_t *result) {
    return !__builtin_add_overflow(a, b, result);
}

/* a + b, kept at the end of int64_t that it would cross. */
static inline int64_t attni_saturating_add(int64_t a, int64_t b) {
    int64_t sum;
    if (!__builtin_add_overflow(a, b, &sum)) {
        return sum;
    }
    return a < 0 ? INT64_MIN : INT64_MAX;
}

static inline int64_t attni_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t attni_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline int64_t attni_clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* a / b rounded up, for a >= 0 and b > 0. */
static inline int64_t attni_divide_up(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

#endif
