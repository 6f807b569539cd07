/* SPDX-License-Identifier: BSD-3-Clause
 *
 * feature_kernels.c: normalising and rotating rows in the compiler's vector extensions, one text
 * for every instruction set and both element types (see vectors.h).
 */
#include "kernels/feature_kernels.h"

#include "kernels/kernel_tables.h"
#include "kernels/vectors.h"

/* ---- RMS normalisation, in float64 ---- */

typedef double wide __attribute__((vector_size(VECTOR_BYTES)));

/* As many elements as a vector of float64 has lanes. */
enum { WIDE_LANES = VECTOR_BYTES / sizeof(double), NUM_SUMS = 4 };
typedef real part __attribute__((vector_size(WIDE_LANES * sizeof(real))));
typedef real part_in_memory
    __attribute__((vector_size(WIDE_LANES * sizeof(real)), aligned(1), may_alias));

INLINE wide load_wide(const real *from) {
    return __builtin_convertvector(*(const part_in_memory *)from, wide);
}

INLINE void store_wide(real *to, wide x) {
    *(part_in_memory *)to = __builtin_convertvector(x, part);
}

/* The first n < WIDE_LANES elements; the other lanes are 0. */
INLINE wide load_wide_part(const real *from, int64_t n) {
    real lanes[WIDE_LANES] = {0};
    memcpy(lanes, from, (size_t)n * sizeof(real));
    return load_wide(lanes);
}

INLINE void store_wide_part(real *to, wide x, int64_t n) {
    real lanes[WIDE_LANES];
    store_wide(lanes, x);
    memcpy(to, lanes, (size_t)n * sizeof(real));
}

INLINE wide squares(wide x, double factor) {
    const wide scaled = x * factor;
    return scaled * scaled;
}

static double feature_square_sum(const void *data, int64_t n, double factor) {
    const real *row = data;
    wide sums[NUM_SUMS] = {{0}};
    int64_t j = 0;
    for (; j + NUM_SUMS * WIDE_LANES <= n; j += NUM_SUMS * WIDE_LANES) {
        UNROLL
        for (int i = 0; i < NUM_SUMS; ++i) {
            sums[i] += squares(load_wide(row + j + i * WIDE_LANES), factor);
        }
    }
    for (; j + WIDE_LANES <= n; j += WIDE_LANES) {
        sums[0] += squares(load_wide(row + j), factor);
    }
    if (j < n) {
        sums[1] += squares(load_wide_part(row + j, n - j), factor);
    }
    const wide total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double sum = 0;
    for (int i = 0; i < WIDE_LANES; ++i) {
        sum += total[i];
    }
    return sum;
}

static void feature_normalize(void *target, const void *data, int64_t n, double factor,
                              double scale, const void *weights, double offset) {
    real *to = target;
    const real *from = data;
    const real *weight = weights;
    int64_t j = 0;
    for (; j + WIDE_LANES <= n; j += WIDE_LANES) {
        const wide x = load_wide(from + j) * factor * scale;
        store_wide(to + j, weight == NULL ? x : x * (offset + load_wide(weight + j)));
    }
    if (j < n) {
        const wide x = load_wide_part(from + j, n - j) * factor * scale;
        const wide y = weight == NULL ? x : x * (offset + load_wide_part(weight + j, n - j));
        store_wide_part(to + j, y, n - j);
    }
}

/* ---- rotation ---- */

typedef struct pairs {
    vector first;
    vector second;
} pairs;

INLINE pairs turned(pairs x, vector cosine, vector sine) {
    return (pairs){x.first * cosine - x.second * sine, x.second * cosine + x.first * sine};
}

static void feature_rotate_halves(void *to_first, void *to_second, const void *first,
                                  const void *second, const void *cosines, const void *sines,
                                  int64_t n) {
    real *left = to_first;
    real *right = to_second;
    const real *x = first;
    const real *y = second;
    const real *c = cosines;
    const real *s = sines;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const pairs result = turned((pairs){load(x + i), load(y + i)}, load(c + i), load(s + i));
        store(left + i, result.first);
        store(right + i, result.second);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const pairs given = {load_part(x + i, rest, 0), load_part(y + i, rest, 0)};
        const pairs result = turned(given, load_part(c + i, rest, 0), load_part(s + i, rest, 0));
        store_part(left + i, result.first, rest);
        store_part(right + i, result.second, rest);
    }
}

/* Elements of two vectors one after the other: those at even places and at odd ones; and the low
 * and the high halves of two vectors, one element of each in turn. */
#define TWO_LANES_EVEN 0, 2
#define TWO_LANES_ODD 1, 3
#define TWO_LANES_LOW 0, 2
#define TWO_LANES_HIGH 1, 3
#define FOUR_LANES_EVEN 0, 2, 4, 6
#define FOUR_LANES_ODD 1, 3, 5, 7
#define FOUR_LANES_LOW 0, 4, 1, 5
#define FOUR_LANES_HIGH 2, 6, 3, 7
#define EIGHT_LANES_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define EIGHT_LANES_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define EIGHT_LANES_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define EIGHT_LANES_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define SIXTEEN_LANES_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define SIXTEEN_LANES_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define SIXTEEN_LANES_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SIXTEEN_LANES_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

#if defined(ATTNI_REAL_IS_float)
#define REALS_IN_16_BYTES 4
#else
#define REALS_IN_16_BYTES 2
#endif
#if VECTOR_BYTES / 16 * REALS_IN_16_BYTES == 16
#define SHUFFLE(a, b, order) __builtin_shufflevector(a, b, SIXTEEN_LANES_##order)
#elif VECTOR_BYTES / 16 * REALS_IN_16_BYTES == 8
#define SHUFFLE(a, b, order) __builtin_shufflevector(a, b, EIGHT_LANES_##order)
#elif VECTOR_BYTES / 16 * REALS_IN_16_BYTES == 4
#define SHUFFLE(a, b, order) __builtin_shufflevector(a, b, FOUR_LANES_##order)
#else
#define SHUFFLE(a, b, order) __builtin_shufflevector(a, b, TWO_LANES_##order)
#endif

/* LANES pairs of neighbours. */
INLINE void rotate_vectors(real *to, const real *from, vector cosine, vector sine) {
    const vector low = load(from);
    const vector high = load(from + LANES);
    const pairs given = {SHUFFLE(low, high, EVEN), SHUFFLE(low, high, ODD)};
    const pairs result = turned(given, cosine, sine);
    store(to, SHUFFLE(result.first, result.second, LOW));
    store(to + LANES, SHUFFLE(result.first, result.second, HIGH));
}

static void feature_rotate_neighbours(void *target, const void *data, const void *cosines,
                                      const void *sines, int64_t n) {
    real *to = target;
    const real *from = data;
    const real *c = cosines;
    const real *s = sines;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        rotate_vectors(to + 2 * i, from + 2 * i, load(c + i), load(s + i));
    }
    if (i < n) {
        const int64_t rest = n - i;
        real lanes[2 * LANES] = {0};
        memcpy(lanes, from + 2 * i, (size_t)rest * 2 * sizeof(real));
        rotate_vectors(lanes, lanes, load_part(c + i, rest, 0), load_part(s + i, rest, 0));
        memcpy(to + 2 * i, lanes, (size_t)rest * 2 * sizeof(real));
    }
}

const attni_feature_kernels TABLE_NAME(feature_kernels) = {
    .square_sum = feature_square_sum,
    .normalize = feature_normalize,
    .rotate_halves = feature_rotate_halves,
    .rotate_neighbours = feature_rotate_neighbours,
};
