/* SPDX-License-Identifier: BSD-3-Clause
 *
 * storage_kernels.c: rows of stored elements as float32 and back. Where columns lie apart elements
 * are gathered for a vector, so that a number is computed alike in every layout.
 */
#include "kernels/storage_kernels.h"

#include "kernels/kernel_tables.h"
#include "kernels/storage.h"
#include "kernels/transpose.h"

/* The n elements from `from` on, `stride` apart; at most a vector of them, other lanes are 0. */
INLINE vector load_row(const stored *from, int64_t stride, int64_t n) {
    if (stride == 1) {
        return n >= LANES ? load_stored(from) : load_stored_part(from, n);
    }
    stored lanes[LANES] = {0};
    for (int64_t i = 0; i < LANES && i < n; ++i) {
        lanes[i] = stored_at(from + i * stride);
    }
    return load_stored(lanes);
}

static void storage_widen(float *to, const void *from, int64_t stride, int64_t n) {
    const stored *row = from;
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(to + j, load_row(row + j * stride, stride, LANES));
    }
    if (j < n) {
        store_part(to + j, load_row(row + j * stride, stride, n - j), n - j);
    }
}

static void storage_narrow(void *to, int64_t stride, const float *from, int64_t n) {
    stored *row = to;
    for (int64_t j = 0; j < n; j += LANES) {
        const int64_t count = n - j < LANES ? n - j : LANES;
        const vector x = count == LANES ? load(from + j) : load_part(from + j, count, 0);
        stored lanes[LANES];
        if (stride == 1 && count == LANES) {
            store_stored(row + j, x);
            continue;
        }
        store_stored(lanes, x);
        for (int64_t i = 0; i < count; ++i) {
            put_stored(row + (j + i) * stride, lanes[i]);
        }
    }
}

static void storage_accumulate(float *to, const void *from, int64_t stride, int64_t n,
                               float factor) {
    const stored *row = from;
    int64_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        store(to + c, load(to + c) + factor * load_row(row + c * stride, stride, LANES));
    }
    if (c < n) {
        const vector sum =
            load_part(to + c, n - c, 0) + factor * load_row(row + c * stride, stride, n - c);
        store_part(to + c, sum, n - c);
    }
}

/* ---- queries ---- */

/* Elements [first, first + count) of LANES rows into the lanes of a panel. */
INLINE void pack_square(float *panel, int64_t width, const void *const *rows, int64_t first,
                        int64_t stride, int64_t count, float factor) {
    vector square[LANES];
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        square[i] = load_row((const stored *)rows[i] + first * stride, stride, count);
    }
    transpose(square);
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        if (i < count) {
            store(panel + (first + i) * width, square[i] * factor);
        }
    }
}

static void storage_pack_rows(float *panel, int32_t vectors, const void *const *rows,
                              int64_t stride, int64_t head_dim, float factor) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t lane = 0; lane < width; lane += LANES) {
        int64_t e = 0;
        for (; stride == 1 && e + LANES <= head_dim; e += LANES) {
            pack_square(panel + lane, width, rows + lane, e, 1, LANES, factor);
        }
        for (; e < head_dim; e += LANES) {
            const int64_t count = head_dim - e < LANES ? head_dim - e : LANES;
            pack_square(panel + lane, width, rows + lane, e, stride, count, factor);
        }
    }
}

/* ---- values ---- */

static void storage_pack_values(float *packed, int64_t chunk_stride, int64_t columns,
                                const void *values, int64_t key_stride, int64_t col_stride,
                                int64_t num_keys, int64_t value_dim) {
    for (int64_t first = 0; first < value_dim; first += columns) {
        float *chunk = packed + first / columns * chunk_stride;
        for (int64_t j = 0; j < num_keys; ++j) {
            const stored *row = (const stored *)values + j * key_stride + first * col_stride;
            for (int64_t c = 0; c < columns; c += LANES) {
                const int64_t left = value_dim - first - c;
                store(chunk + j * columns + c,
                      left > 0 ? load_row(row + c * col_stride, col_stride, left) : (vector){0});
            }
        }
    }
}

/* x * 0 is 0 for finite x only, and a NaN stays in the sum. */
static bool storage_are_finite(const void *values, int64_t key_stride, int64_t col_stride,
                               int64_t num_keys, int64_t value_dim) {
    vector zeros = {0};
    for (int64_t j = 0; j < num_keys; ++j) {
        const stored *row = (const stored *)values + j * key_stride;
        for (int64_t c = 0; c < value_dim; c += LANES) {
            zeros += load_row(row + c * col_stride, col_stride, value_dim - c) * 0;
        }
    }
    float sum = 0;
    for (int i = 0; i < LANES; ++i) {
        sum += zeros[i];
    }
    return sum == 0;
}

const attni_storage_kernels STORED_TABLE_NAME(storage_kernels) = {
    .element_bytes = sizeof(stored),
    .widen = storage_widen,
    .narrow = storage_narrow,
    .accumulate = storage_accumulate,
    .pack_rows = storage_pack_rows,
    .pack_values = storage_pack_values,
    .are_finite = storage_are_finite,
};
