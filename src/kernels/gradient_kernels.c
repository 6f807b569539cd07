/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradient_kernels.c: the backward pass's rows in the compiler's vector extensions: one text for
 * every instruction set and both element types (see vectors.h).
 */
#include "kernels/gradient_kernels.h"

#include "kernels/exact_exponential.h"
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

typedef weight_parts (*normalizer)(vector score, row_numbers numbers);

INLINE weight_parts softmax_parts(vector score, row_numbers numbers) {
    const vector weight = exp_nonpositive(score - numbers.lse);
    return (weight_parts){weight, weight};
}

INLINE weight_parts sigmoid_parts(vector score, row_numbers numbers) {
    (void)numbers;
    const vector weight = logistic(score);
    return (weight_parts){weight, weight * (1 - weight)};
}

INLINE weight_parts linear_parts(vector score, row_numbers numbers) {
    (void)numbers;
    return (weight_parts){score, broadcast(1)};
}

INLINE void normalize_vector(normalizer function, row_numbers numbers, vector *score,
                             vector *gradient) {
    const vector_mask is_hidden = *score == -(real)INFINITY;
    const weight_parts parts = function(*score, numbers);
    const vector changed = numbers.factor * (parts.slope * (*gradient - numbers.mean));
    *score = choose(is_hidden, broadcast(0), parts.weight);
    *gradient = choose(is_hidden, broadcast(0), changed);
}

INLINE void normalize_row(real *scores, real *gradient, int64_t n, normalizer function,
                          row_numbers numbers) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        vector score = load(scores + j);
        vector change = load(gradient + j);
        normalize_vector(function, numbers, &score, &change);
        store(scores + j, score);
        store(gradient + j, change);
    }
    if (j < n) {
        vector score = load_part(scores + j, n - j, 0);
        vector change = load_part(gradient + j, n - j, 0);
        normalize_vector(function, numbers, &score, &change);
        store_part(scores + j, score, n - j);
        store_part(gradient + j, change, n - j);
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
