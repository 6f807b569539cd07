/* SPDX-License-Identifier: BSD-3-Clause
 *
 * feature_kernels.c: normalising and rotating rows in the compiler's vector extensions, one text
 * for every instruction set and both element types (see vectors.h).
 */
#include "kernels/feature_kernels.h"

#include <stdbool.h>

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

static double feature_normalized_dot(const void *data, const void *gradient_data, int64_t n,
                                     double factor, double scale, const void *weights,
                                     double offset) {
    const real *row = data;
    const real *gradient = gradient_data;
    const real *weight = weights;
    wide total = {0};
    int64_t j = 0;
    for (; j + WIDE_LANES <= n; j += WIDE_LANES) {
        const wide x = load_wide(row + j) * factor * scale;
        total += x * (load_wide(gradient + j) * (offset + load_wide(weight + j)));
    }
    if (j < n) {
        const wide x = load_wide_part(row + j, n - j) * factor * scale;
        total += x * (load_wide_part(gradient + j, n - j) *
                      (offset + load_wide_part(weight + j, n - j)));
    }
    double sum = 0;
    for (int i = 0; i < WIDE_LANES; ++i) {
        sum += total[i];
    }
    return sum;
}

INLINE wide back(wide x, wide gradient, wide weight, double factor, double scale, double mean) {
    return (gradient * weight - x * mean) * factor * scale;
}

static void feature_normalize_back(void *target, double *sums, const void *data,
                                   const void *gradient_data, int64_t n, double factor,
                                   double scale, const void *weights, double offset, double mean) {
    real *to = target;
    const real *row = data;
    const real *gradient = gradient_data;
    const real *weight = weights;
    int64_t j = 0;
    for (; j + WIDE_LANES <= n; j += WIDE_LANES) {
        const wide x = load_wide(row + j) * factor * scale;
        const wide dy = load_wide(gradient + j);
        wide sum;
        memcpy(&sum, sums + j, sizeof sum);
        sum += dy * x;
        memcpy(sums + j, &sum, sizeof sum);
        store_wide(to + j, back(x, dy, offset + load_wide(weight + j), factor, scale, mean));
    }
    if (j < n) {
        const wide x = load_wide_part(row + j, n - j) * factor * scale;
        const wide dy = load_wide_part(gradient + j, n - j);
        for (int64_t i = 0; i < n - j; ++i) {
            sums[j + i] += dy[i] * x[i];
        }
        store_wide_part(
            to + j, back(x, dy, offset + load_wide_part(weight + j, n - j), factor, scale, mean),
            n - j);
    }
}

/* ---- cosines and sines, in float64 ---- */

typedef int64_t wide_mask __attribute__((vector_size(VECTOR_BYTES)));

/* pi/2 = HALF_PI_1 + HALF_PI_2 + HALF_PI_3: the first two have 33 bits, so that their products with
 * an integer below 2^20 are exact. */
#define TWO_OVER_PI 0x1.45f306dc9c883p-1
#define HALF_PI_1 0x1.921fb544p+0
#define HALF_PI_2 0x1.0b4611a6p-34
#define HALF_PI_3 0x1.3198a2e037073p-69
#define LARGEST_ANGLE 0x1p20
#define WIDE_ROUND_MAGIC 0x1.8p52 /* as ROUND_MAGIC, of float64 */

/* Minimax coefficients for |r| <= pi/4, of relative error below 2^-57 (FreeBSD's k_sin.c, k_cos.c):
 * sin(r) = r + r^3 (s0 + s1 r^2 + ...), cos(r) = 1 - r^2/2 + r^4 (c0 + c1 r^2 + ...). */
static const double sine_terms[] = {-1.66666666666666324348e-01, 8.33333333332248946124e-03,
                                    -1.98412698298579493134e-04, 2.75573137070700676789e-06,
                                    -2.50507602534068634195e-08, 1.58969099521155010221e-10};
static const double cosine_terms[] = {4.16666666666666019037e-02, -1.38888888888741095749e-03,
                                      2.48015872894767294178e-05, -2.75573143513906633035e-07,
                                      2.08757232129817482790e-09, -1.13596475577881948265e-11};
enum { NUM_TERMS = 6 };

typedef struct turn {
    wide cosine;
    wide sine;
} turn;

INLINE wide choose_wide(wide_mask mask, wide a, wide b) {
    return (wide)((mask & (wide_mask)a) | (~mask & (wide_mask)b));
}

INLINE wide polynomial(wide z, const double terms[NUM_TERMS]) {
    wide sum = z * terms[NUM_TERMS - 1] + terms[NUM_TERMS - 2];
    UNROLL
    for (int k = NUM_TERMS - 3; k >= 0; --k) {
        sum = sum * z + terms[k];
    }
    return sum;
}

/* For |angle| <= LARGEST_ANGLE: angle = n pi/2 + r, n the nearest integer. Odd n change the two
 * for each other; n mod 4 has their signs. A host that rounds upwards or downwards makes n that of
 * one side, which is set right. */
INLINE turn turn_of(wide angle) {
    const wide one = (wide){0} + 1;
    const wide rounded = angle * TWO_OVER_PI + WIDE_ROUND_MAGIC;
    const wide beyond = angle * TWO_OVER_PI - (rounded - WIDE_ROUND_MAGIC);
    const wide more = (wide)((beyond > 0.5) & (wide_mask)one);
    const wide less = (wide)((beyond < -0.5) & (wide_mask)one);
    const wide shifted = rounded + (more - less);
    const wide n = shifted - WIDE_ROUND_MAGIC;
    const wide r = ((angle - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3;
    const wide z = r * r;
    const wide sine = r + r * z * polynomial(z, sine_terms);
    const wide cosine = 1 - (0.5 * z - z * z * polynomial(z, cosine_terms));
    const wide_mask quadrant = (wide_mask)shifted;
    const wide_mask is_odd = -(quadrant & 1);
    const wide_mask sine_sign = (quadrant & 2) << 62;
    const wide_mask cosine_sign = ((quadrant + 1) & 2) << 62;
    turn result;
    result.cosine = (wide)((wide_mask)choose_wide(is_odd, sine, cosine) ^ cosine_sign);
    result.sine = (wide)((wide_mask)choose_wide(is_odd, cosine, sine) ^ sine_sign);
    return result;
}

INLINE wide load_doubles(const double *from, int64_t n) {
    double lanes[WIDE_LANES] = {0};
    memcpy(lanes, from, (size_t)(n < WIDE_LANES ? n : WIDE_LANES) * sizeof(double));
    wide x;
    memcpy(&x, lanes, sizeof x);
    return x;
}

/* Whether every angle of a row is one that turn_of takes; NaN is not. */
INLINE bool are_small(double position, const double *frequencies, int64_t n) {
    wide_mask small = (wide_mask){0} - 1;
    for (int64_t i = 0; i < n; i += WIDE_LANES) {
        const wide angle = load_doubles(frequencies + i, n - i) * position;
        small &= (angle <= LARGEST_ANGLE) & (angle >= -LARGEST_ANGLE);
    }
    bool all = true;
    for (int i = 0; i < WIDE_LANES; ++i) {
        all = all && small[i] != 0;
    }
    return all;
}

/* Angles of any size, which the C library reduces exactly. */
static void large_turns(real *cosines, real *sines, double position, const double *frequencies,
                        int64_t n, double cosine_factor, double sine_factor) {
    for (int64_t i = 0; i < n; ++i) {
        const double angle = position * frequencies[i];
        const real cosine = (real)(cosine_factor * cos(angle));
        const real sine = (real)(sine_factor * sin(angle));
        memcpy(cosines + i, &cosine, sizeof cosine);
        memcpy(sines + i, &sine, sizeof sine);
    }
}

static void feature_turns(void *cosines, void *sines, double position, const double *frequencies,
                          int64_t n, double cosine_factor, double sine_factor) {
    real *c = cosines;
    real *s = sines;
    if (!are_small(position, frequencies, n)) {
        large_turns(c, s, position, frequencies, n, cosine_factor, sine_factor);
        return;
    }
    for (int64_t i = 0; i < n; i += WIDE_LANES) {
        const int64_t count = n - i < WIDE_LANES ? n - i : WIDE_LANES;
        const turn result = turn_of(load_doubles(frequencies + i, count) * position);
        if (count == WIDE_LANES) {
            store_wide(c + i, result.cosine * cosine_factor);
            store_wide(s + i, result.sine * sine_factor);
        } else {
            store_wide_part(c + i, result.cosine * cosine_factor, count);
            store_wide_part(s + i, result.sine * sine_factor, count);
        }
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
    .normalized_dot = feature_normalized_dot,
    .normalize_back = feature_normalize_back,
    .turns = feature_turns,
    .rotate_halves = feature_rotate_halves,
    .rotate_neighbours = feature_rotate_neighbours,
};
