/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_kernels.c: the row kernels in the compiler's vector extensions: one text for every
 * instruction set and both element types.
 *
 * The build compiles this file once for each pair (see vectors.h).
 */
#include "kernels/row_kernels.h"

#include <math.h>

#include "base/half_precision.h"
#include "kernels/dropout_factors.h"
#include "kernels/exact_exponential.h"
#include "kernels/kernel_tables.h"
#include "kernels/vectors.h"

enum {
    CHUNK = 256, /* elements handled through a buffer on the stack where a mask must be gathered or
                    converted */
    SUM_BLOCK = 1024 /* elements summed in the row's type before the sum moves to double */
};

/* exp(x) - 1 for x <= 0 or NaN. */
INLINE vector expm1_nonpositive(vector x) {
    const exp_parts parts = split_exp(choose(x < LOWEST_ARGUMENT, broadcast(LOWEST_ARGUMENT), x));
    return parts.power * parts.tail + (parts.power - 1);
}

/* Applies `function` to every element; the tail goes through the same arithmetic with its unused
 * lanes 0. */
typedef vector (*vector_function)(vector x, real argument);

INLINE void map_row(real *row, int64_t n, vector_function function, real argument) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(row + j, function(load(row + j), argument));
    }
    if (j < n) {
        store_part(row + j, function(load_part(row + j, n - j, 0), argument), n - j);
    }
}

static double row_max(const void *data, int64_t n) {
    const real *row = data;
    const real lowest = -(real)INFINITY;
    vector largest = broadcast(lowest);
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        const vector x = load(row + j);
        largest = choose(x > largest, x, largest);
    }
    if (j < n) {
        const vector x = load_part(row + j, n - j, lowest);
        largest = choose(x > largest, x, largest);
    }
    real result = lowest;
    for (int i = 0; i < LANES; ++i) {
        result = largest[i] > result ? largest[i] : result;
    }
    return (double)result;
}

static bool row_has_nan(const void *data, int64_t n) {
    const real *row = data;
    for (int64_t j = 0; j < n; ++j) {
        real x;
        memcpy(&x, row + j, sizeof x);
        if (x != x) {
            return true;
        }
    }
    return false;
}

static bool row_is_zero(const void *data, int64_t n) {
    const real *row = data;
    for (int64_t j = 0; j < n; ++j) {
        real x;
        memcpy(&x, row + j, sizeof x);
        if (!(x == 0)) {
            return false;
        }
    }
    return true;
}

/* A sum with the rounding errors of its additions kept beside it (Neumaier, 1974), so that adding
 * many blocks costs no accuracy. */
typedef struct exact_sum {
    double sum;
    double error;
} exact_sum;

INLINE void add_exactly(exact_sum *total, double term) {
    const double sum = total->sum + term;
    const double smaller = total->sum >= term ? term : total->sum;
    const double larger = total->sum >= term ? total->sum : term;
    total->error += larger - sum + smaller;
    total->sum = sum;
}

static double row_exp_sum(void *data, int64_t n, double max) {
    real *row = data;
    const real top = (real)max;
    exact_sum total = {0, 0};
    for (int64_t first = 0; first < n; first += SUM_BLOCK) {
        const int64_t end = n - first < SUM_BLOCK ? n : first + SUM_BLOCK;
        vector sum = broadcast(0);
        int64_t j = first;
        for (; j + LANES <= end; j += LANES) {
            const vector e = exp_nonpositive(load(row + j) - top);
            store(row + j, e);
            sum += e;
        }
        if (j < end) {
            const vector e = exp_nonpositive(load_part(row + j, end - j, -(real)INFINITY) - top);
            store_part(row + j, e, end - j);
            sum += e;
        }
        for (int i = 0; i < LANES; ++i) {
            add_exactly(&total, (double)sum[i]);
        }
    }
    return total.sum + total.error;
}

INLINE vector exponential(vector x, real unused) {
    (void)unused;
    return exp_nonpositive(x);
}

static void row_exp(void *row, int64_t n) {
    map_row(row, n, exponential, 0);
}

INLINE vector times(vector x, real factor) {
    return x * factor;
}

static void row_scale(void *row, int64_t n, double factor) {
    map_row(row, n, times, (real)factor);
}

/* |tanh(y)| = |m / (m + 2)| with m = exp(-2|y|) - 1; the sign is y's. */
INLINE vector capped(vector x, real cap) {
    const vector_mask sign = (vector_mask)x & (vector_mask)broadcast((real)-0.0);
    const vector m = expm1_nonpositive((real)-2 * absolute(x / cap));
    const vector magnitude = cap * absolute(m / (m + 2));
    return (vector)((vector_mask)magnitude | sign);
}

static void row_softcap(void *row, int64_t n, double cap) {
    map_row(row, n, capped, (real)cap);
}

INLINE vector sigmoid(vector x, real unused) {
    (void)unused;
    return logistic(x);
}

static void row_sigmoid(void *row, int64_t n) {
    map_row(row, n, sigmoid, 0);
}

static void row_alibi(void *data, int64_t n, double slope, double distance) {
    real *row = data;
    vector step = {0};
    for (int i = 0; i < LANES; ++i) {
        step[i] = (real)i;
    }
    for (int64_t j = 0; j < n; j += LANES) {
        const int64_t count = n - j < LANES ? n - j : LANES;
        const vector away = absolute((real)(distance - (double)j) - step);
        const vector x = count == LANES ? load(row + j) : load_part(row + j, count, 0);
        store_part(row + j, x - (real)slope * away, count);
    }
}

/* Element `offset` of a row of a float type, which is a constant where this is inlined. */
INLINE real read_as(const int32_t dtype, const char *from, int64_t offset) {
    if (dtype == ATTN_DTYPE_FLOAT32) {
        float value;
        memcpy(&value, from + offset * (int64_t)sizeof value, sizeof value);
        return (real)value;
    }
    if (dtype == ATTN_DTYPE_FLOAT64) {
        double value;
        memcpy(&value, from + offset * (int64_t)sizeof value, sizeof value);
        return (real)value;
    }
    uint16_t half;
    memcpy(&half, from + offset * (int64_t)sizeof half, sizeof half);
    return (real)(dtype == ATTN_DTYPE_BFLOAT16 ? attni_widen_bfloat16(half)
                                               : attni_widen_float16(half));
}

INLINE void gather_as(const int32_t dtype, real *to, const char *from, int64_t stride, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
        to[j] = read_as(dtype, from, j * stride);
    }
}

/* Copies n <= CHUNK values of any float type and stride to `to`. */
static void gather(real *to, const char *from, int64_t stride, int64_t n, int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_FLOAT32:
        gather_as(ATTN_DTYPE_FLOAT32, to, from, stride, n);
        break;
    case ATTN_DTYPE_FLOAT64:
        gather_as(ATTN_DTYPE_FLOAT64, to, from, stride, n);
        break;
    case ATTN_DTYPE_BFLOAT16:
        gather_as(ATTN_DTYPE_BFLOAT16, to, from, stride, n);
        break;
    default:
        gather_as(ATTN_DTYPE_FLOAT16, to, from, stride, n);
        break;
    }
}

static int64_t bytes_of(int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_FLOAT32:
        return sizeof(float);
    case ATTN_DTYPE_FLOAT64:
        return sizeof(double);
    default:
        return sizeof(uint16_t);
    }
}

/* What becomes of a score x whose bias is finite. */
typedef vector (*bias_function)(vector x, vector bias);

INLINE vector untouched(vector x, vector bias) {
    (void)bias;
    return x;
}

/* row[j] = excluded where the bias is -inf, else function(row[j], bias[j * stride]). */
INLINE void apply_bias(real *row, int64_t n, const char *bias, int64_t stride, int32_t bias_dtype,
                       real excluded, bias_function function) {
    const int64_t step = stride * bytes_of(bias_dtype);
    int64_t first = 0;
    for (; bias_dtype == REAL_DTYPE && stride == 1 && first + LANES <= n; first += LANES) {
        const vector b = load((const real *)(const void *)bias + first);
        store(row + first,
              choose(b == -(real)INFINITY, broadcast(excluded), function(load(row + first), b)));
    }
    real buffer[CHUNK] = {0};
    for (; first < n; first += CHUNK) {
        const int64_t chunk = n - first < CHUNK ? n - first : CHUNK;
        gather(buffer, bias + first * step, stride, chunk, bias_dtype);
        for (int64_t j = 0; j < chunk; j += LANES) {
            const int64_t count = chunk - j < LANES ? chunk - j : LANES;
            real *target = row + first + j;
            const vector b = load(buffer + j);
            const vector x = count == LANES ? load(target) : load_part(target, count, 0);
            store_part(target, choose(b == -(real)INFINITY, broadcast(excluded), function(x, b)),
                       count);
        }
    }
}

static void row_add_bias(void *row, int64_t n, const void *bias, int64_t stride, int32_t bias_dtype,
                         double excluded) {
    apply_bias(row, n, bias, stride, bias_dtype, (real)excluded, finite_sum);
}

static void row_exclude(void *row, int64_t n, const void *bias, int64_t stride, int32_t bias_dtype,
                        double excluded) {
    apply_bias(row, n, bias, stride, bias_dtype, (real)excluded, untouched);
}

static void row_hide(void *data, int64_t n, const unsigned char *flags, int64_t stride,
                     bool hidden_if, double excluded) {
    real *row = data;
    const real replacement = (real)excluded;
    integer hidden[CHUNK] = {0};
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t count = n - first < CHUNK ? n - first : CHUNK;
        for (int64_t j = 0; j < count; ++j) {
            hidden[j] = (flags[(first + j) * stride] != 0) == hidden_if ? -1 : 0;
        }
        for (int64_t j = 0; j < count; j += LANES) {
            const int64_t width = count - j < LANES ? count - j : LANES;
            vector_mask mask;
            memcpy(&mask, hidden + j, sizeof mask);
            real *target = row + first + j;
            const vector x = width == LANES ? load(target) : load_part(target, width, 0);
            store_part(target, choose(mask, broadcast(replacement), x), width);
        }
    }
}

static void row_multiply(void *data, const void *factors_data, int64_t n) {
    real *row = data;
    const real *factors = factors_data;
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(row + j, load(row + j) * load(factors + j));
    }
    if (j < n) {
        store_part(row + j, load_part(row + j, n - j, 0) * load_part(factors + j, n - j, 0), n - j);
    }
}

/* A piece of a row at a time; whether it is multiplied or written is a constant where this is
 * inlined. */
INLINE void drop_row(real *row, int64_t n, int64_t column, uint32_t number, uint32_t head,
                     const attni_dropout_stream *stream, const bool is_multiplied) {
    for (int64_t j = -(column % 4); j < n; j += DROP_COLS) {
        const int64_t begin = j < 0 ? -j : 0;
        const int64_t count = (n - j < DROP_COLS ? n - j : DROP_COLS) - begin;
        real factors[DROP_COLS];
        drop_factors(factors, (uint32_t)((column + j) / 4), number, head, stream);
        if (is_multiplied) {
            row_multiply(row + (j + begin), factors + begin, count);
        } else {
            memcpy(row + (j + begin), factors + begin, (size_t)count * sizeof(real));
        }
    }
}

static void row_drop(void *row, int64_t n, int64_t column, uint32_t number, uint32_t head,
                     const attni_dropout_stream *stream) {
    drop_row(row, n, column, number, head, stream, true);
}

static void row_keep(void *row, int64_t n, int64_t column, uint32_t number, uint32_t head,
                     const attni_dropout_stream *stream) {
    drop_row(row, n, column, number, head, stream, false);
}

static void row_accumulate(void *to_data, const void *from_data, int64_t stride, int64_t n,
                           double factor) {
    real *to = to_data;
    const real *from = from_data;
    const real weight = (real)factor;
    int64_t c = 0;
    if (stride == 1) {
        for (; c + LANES <= n; c += LANES) {
            store(to + c, load(to + c) + weight * load(from + c));
        }
    }
    for (; c < n; ++c) {
        real sum;
        real term;
        memcpy(&sum, to + c, sizeof sum);
        memcpy(&term, (const char *)from_data + c * stride * (int64_t)sizeof term, sizeof term);
        sum += weight * term;
        memcpy(to + c, &sum, sizeof sum);
    }
}

const attni_row_kernels TABLE_NAME(row_kernels) = {
    .max = row_max,
    .has_nan = row_has_nan,
    .is_zero = row_is_zero,
    .exp_sum = row_exp_sum,
    .exp = row_exp,
    .scale = row_scale,
    .softcap = row_softcap,
    .alibi = row_alibi,
    .sigmoid = row_sigmoid,
    .add_bias = row_add_bias,
    .exclude = row_exclude,
    .hide = row_hide,
    .drop = row_drop,
    .keep = row_keep,
    .multiply = row_multiply,
    .accumulate = row_accumulate,
};
