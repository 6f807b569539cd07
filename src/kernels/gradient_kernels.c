/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradient_kernels.c: the backward pass's rows in the compiler's vector extensions: one text for
 * every instruction set and both element types (see vectors.h).
 */
#include "kernels/gradient_kernels.h"

#include "kernels/exact_exponential.h"
#if defined(ATTNI_REAL_IS_float)
#include "kernels/exponential.h"
#endif
#include "kernels/kernel_tables.h"
#include "kernels/vectors.h"

enum { DOT_BLOCK = 1024 }; /* products summed in the row's type before the sum moves to double */

/* What a normalizer is told of a row. */
typedef struct row_numbers {
    real lse;
    real mean;
    real factor;
} row_numbers;

/* A weight, and what its gradient is multiplied with after `mean` was taken off. */
typedef struct weight_parts {
    vector weight;
    vector slope;
} weight_parts;

/* Of `count` vectors side by side, so that steps that wait for one another alternate. */
typedef void (*normalizer)(const vector *scores, row_numbers numbers, weight_parts *parts,
                           const int count);

enum { SIDE_BY_SIDE = 2 };

INLINE void softmax_parts(const vector *scores, row_numbers numbers, weight_parts *parts,
                          const int count) {
    vector weights[SIDE_BY_SIDE];
    UNROLL
    for (int v = 0; v < count; ++v) {
        weights[v] = scores[v] - numbers.lse;
    }
#if defined(ATTNI_REAL_IS_float)
    exponentiate(weights, count);
#else
    UNROLL
    for (int v = 0; v < count; ++v) {
        weights[v] = exp_nonpositive(weights[v]);
    }
#endif
    UNROLL
    for (int v = 0; v < count; ++v) {
        parts[v] = (weight_parts){weights[v], weights[v]};
    }
}

INLINE void sigmoid_parts(const vector *scores, row_numbers numbers, weight_parts *parts,
                          const int count) {
    (void)numbers;
    for (int v = 0; v < count; ++v) {
        const vector weight = logistic(scores[v]);
        parts[v] = (weight_parts){weight, weight * (1 - weight)};
    }
}

INLINE void linear_parts(const vector *scores, row_numbers numbers, weight_parts *parts,
                         const int count) {
    (void)numbers;
    for (int v = 0; v < count; ++v) {
        parts[v] = (weight_parts){scores[v], broadcast(1)};
    }
}

INLINE void normalize_vectors(normalizer function, row_numbers numbers, vector *scores,
                              vector *gradient, const int count) {
    weight_parts parts[SIDE_BY_SIDE];
    function(scores, numbers, parts, count);
    UNROLL
    for (int v = 0; v < count; ++v) {
        const vector changed = numbers.factor * (parts[v].slope * (gradient[v] - numbers.mean));
        gradient[v] = unless_equal(scores[v], broadcast(-(real)INFINITY), changed);
        scores[v] = unless_equal(scores[v], broadcast(-(real)INFINITY), parts[v].weight);
    }
}

INLINE void normalize_row(real *scores, real *gradient, int64_t n, normalizer function,
                          row_numbers numbers) {
    int64_t j = 0;
    for (; j + SIDE_BY_SIDE * LANES <= n; j += SIDE_BY_SIDE * LANES) {
        vector some[SIDE_BY_SIDE];
        vector changes[SIDE_BY_SIDE];
        UNROLL
        for (int v = 0; v < SIDE_BY_SIDE; ++v) {
            some[v] = load(scores + j + v * LANES);
            changes[v] = load(gradient + j + v * LANES);
        }
        normalize_vectors(function, numbers, some, changes, SIDE_BY_SIDE);
        UNROLL
        for (int v = 0; v < SIDE_BY_SIDE; ++v) {
            store(scores + j + v * LANES, some[v]);
            store(gradient + j + v * LANES, changes[v]);
        }
    }
    for (; j < n; j += LANES) {
        const int64_t count = n - j < LANES ? n - j : LANES;
        vector score = load_part(scores + j, count, 0);
        vector change = load_part(gradient + j, count, 0);
        normalize_vectors(function, numbers, &score, &change, 1);
        store_part(scores + j, score, count);
        store_part(gradient + j, change, count);
    }
}

static void gradient_softmax(void *scores, void *gradient, int64_t n, double lse, double mean,
                             double factor) {
    const row_numbers numbers = {(real)lse, (real)mean, (real)factor};
    normalize_row(scores, gradient, n, softmax_parts, numbers);
}

static void gradient_sigmoid(void *scores, void *gradient, int64_t n, double factor) {
    normalize_row(scores, gradient, n, sigmoid_parts, (row_numbers){0, 0, (real)factor});
}

static void gradient_linear(void *scores, void *gradient, int64_t n, double factor) {
    normalize_row(scores, gradient, n, linear_parts, (row_numbers){0, 0, (real)factor});
}

INLINE vector uncapped(vector gradient, vector capped, real cap) {
    const vector share = capped / cap;
    return choose(gradient == 0, gradient, gradient * (1 - share * share));
}

static void gradient_softcap(void *gradient_data, const void *capped_data, int64_t n, double cap) {
    real *gradient = gradient_data;
    const real *capped = capped_data;
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(gradient + j, uncapped(load(gradient + j), load(capped + j), (real)cap));
    }
    if (j < n) {
        const vector part = load_part(gradient + j, n - j, 0);
        store_part(gradient + j, uncapped(part, load_part(capped + j, n - j, 0), (real)cap), n - j);
    }
}

static void gradient_add(void *to_data, const void *from_data, int64_t n) {
    real *to = to_data;
    const real *from = from_data;
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(to + j, load(to + j) + load(from + j));
    }
    if (j < n) {
        store_part(to + j, load_part(to + j, n - j, 0) + load_part(from + j, n - j, 0), n - j);
    }
}

/* sum of a[j] * b[j], or of a[j] where b is NULL, which is a constant where this is inlined. */
INLINE double sum_of_products(const real *a, const real *b, int64_t n) {
    double total = 0;
    for (int64_t first = 0; first < n; first += DOT_BLOCK) {
        const int64_t end = n - first < DOT_BLOCK ? n : first + DOT_BLOCK;
        vector sum = broadcast(0);
        int64_t j = first;
        for (; j + LANES <= end; j += LANES) {
            sum += b != NULL ? load(a + j) * load(b + j) : load(a + j);
        }
        if (j < end) {
            const vector part = load_part(a + j, end - j, 0);
            sum += b != NULL ? part * load_part(b + j, end - j, 0) : part;
        }
        for (int i = 0; i < LANES; ++i) {
            total += (double)sum[i];
        }
    }
    return total;
}

static double gradient_dot(const void *a, const void *b, int64_t n) {
    return sum_of_products(a, b, n);
}

static double gradient_sum(const void *row, int64_t n) {
    return sum_of_products(row, NULL, n);
}

static bool gradient_is_finite(const void *data, int64_t n) {
    const real *row = data;
    vector sum = broadcast(0);
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        sum += load(row + j) * 0;
    }
    if (j < n) {
        sum += load_part(row + j, n - j, 0) * 0;
    }
    for (int i = 0; i < LANES; ++i) {
        if (sum[i] != 0) {
            return false;
        }
    }
    return true;
}

const attni_gradient_kernels TABLE_NAME(gradient_kernels) = {
    .softmax = gradient_softmax,
    .sigmoid = gradient_sigmoid,
    .linear = gradient_linear,
    .softcap = gradient_softcap,
    .add = gradient_add,
    .dot = gradient_dot,
    .sum = gradient_sum,
    .is_finite = gradient_is_finite,
};
