/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stream_kernels.c: a few query rows against keys and values that are read once, in the order they
 * lie in memory. What bounds them is the memory, so every loop asks for the rows that the next one
 * will read.
 */
#include "kernels/stream_kernels.h"

#include "kernels/exponential.h"
#include "kernels/kernel_tables.h"
#include "kernels/look_ahead.h"
#include "kernels/transpose.h"

/* ---- scores ---- */

/* Lane i is the sum of the lanes of square[i]. */
INLINE vector sums_of_lanes(vector square[LANES]) {
    transpose(square);
    UNROLL
    for (int half = LANES / 2; half > 0; half /= 2) {
        UNROLL
        for (int i = 0; i < half; ++i) {
            square[i] += square[i + half];
        }
    }
    return square[0];
}

/* Products of one key with the rows, their lanes not yet added up. Two sums for each row keep the
 * multiply-add units busy. */
INLINE void multiply_key(const float *queries, int64_t head_dim, const float *key,
                         const int num_rows, vector *products) {
    vector even[ATTNI_STREAM_ROWS];
    vector odd[ATTNI_STREAM_ROWS];
    UNROLL
    for (int r = 0; r < num_rows; ++r) {
        even[r] = (vector){0};
        odd[r] = (vector){0};
    }
    int64_t e = 0;
    for (; e + 2 * LANES <= head_dim; e += 2 * LANES) {
        const vector first = load(key + e);
        const vector second = load(key + e + LANES);
        UNROLL
        for (int r = 0; r < num_rows; ++r) {
            even[r] += first * load(queries + r * head_dim + e);
            odd[r] += second * load(queries + r * head_dim + e + LANES);
        }
    }
    for (; e < head_dim; e += LANES) {
        const int64_t left = head_dim - e < LANES ? head_dim - e : LANES;
        const vector last = load_part(key + e, left, 0);
        UNROLL
        for (int r = 0; r < num_rows; ++r) {
            even[r] += last * load_part(queries + r * head_dim + e, left, 0);
        }
    }
    UNROLL
    for (int r = 0; r < num_rows; ++r) {
        products[r * LANES] = even[r] + odd[r];
    }
}

INLINE void score_rows(float *tile, int64_t tile_stride, const int num_rows, const float *queries,
                       int64_t head_dim, const float *keys, int64_t key_stride, int64_t num_keys,
                       attni_ahead *ahead) {
    vector products[ATTNI_STREAM_ROWS * LANES];
    for (int64_t first = 0; first < num_keys; first += LANES) {
        const int64_t count = num_keys - first < LANES ? num_keys - first : LANES;
        for (int64_t j = 0; j < count; ++j) {
            look_ahead(ahead);
            multiply_key(queries, head_dim, keys + (first + j) * key_stride, num_rows,
                         products + j);
        }
        for (int r = 0; r < num_rows; ++r) {
            for (int64_t j = count; j < LANES; ++j) {
                products[r * LANES + j] = (vector){0};
            }
            const vector scores = sums_of_lanes(products + r * LANES);
            float *to = tile + r * tile_stride + first;
            if (count == LANES) {
                store(to, scores);
            } else {
                store_part(to, scores, count);
            }
        }
    }
}

static void stream_score(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                         int64_t head_dim, const float *keys, int64_t key_stride, int64_t num_keys,
                         attni_ahead *ahead) {
    switch (num_rows) {
    case 1:
        score_rows(tile, tile_stride, 1, queries, head_dim, keys, key_stride, num_keys, ahead);
        break;
    case 2:
        score_rows(tile, tile_stride, 2, queries, head_dim, keys, key_stride, num_keys, ahead);
        break;
    case 3:
        score_rows(tile, tile_stride, 3, queries, head_dim, keys, key_stride, num_keys, ahead);
        break;
    default:
        score_rows(tile, tile_stride, 4, queries, head_dim, keys, key_stride, num_keys, ahead);
        break;
    }
}

/* ---- weights ---- */

INLINE float largest_lane(vector x, float largest) {
    for (int i = 0; i < LANES; ++i) {
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

/* The n <= LANES scores from `from` on; lanes past them weigh nothing. */
INLINE vector load_scores(const float *from, int64_t n) {
    return n >= LANES ? load(from) : load_part(from, n, -(float)INFINITY);
}

static float max_of_row(const float *row, int64_t num_keys, float old_max) {
    vector max = broadcast(-(float)INFINITY);
    for (int64_t j = 0; j < num_keys; j += LANES) {
        max = larger(load_scores(row + j, num_keys - j), max);
    }
    return largest_lane(max, old_max);
}

static float exponentiate_row(float *row, int64_t num_keys, float max) {
    vector sum = {0};
    for (int64_t j = 0; j < num_keys; j += LANES) {
        vector x[1] = {load_scores(row + j, num_keys - j) - max};
        exponentiate(x, 1);
        sum += x[0];
        if (num_keys - j >= LANES) {
            store(row + j, x[0]);
        } else {
            store_part(row + j, x[0], num_keys - j);
        }
    }
    float total = 0;
    for (int i = 0; i < LANES; ++i) {
        total += sum[i];
    }
    return total;
}

static void stream_exponentiate(float *tile, int64_t tile_stride, int32_t num_rows,
                                int64_t num_keys, attni_panel_state *state) {
    for (int32_t r = 0; r < num_rows; ++r) {
        float *row = tile + r * tile_stride;
        const float max = max_of_row(row, num_keys, state->old_max[r]);
        const float finite = max == -(float)INFINITY ? 0 : max;
        vector rescale[1] = {broadcast(state->old_max[r] - finite)};
        exponentiate(rescale, 1);
        state->max[r] = max;
        state->rescale[r] = rescale[0][0];
        state->sum[r] =
            state->sum[r] * rescale[0][0] + exponentiate_row(row, num_keys, finite);
    }
}

/* ---- weighted values ---- */

/* `vectors` vectors of columns from col on; num_rows and vectors are constants where this is
 * inlined. */
INLINE void weigh_columns(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                          int64_t tile_stride, const int num_rows, const float *values,
                          int64_t key_stride, int64_t num_keys, const int vectors,
                          attni_ahead *ahead) {
    vector sum[ATTNI_STREAM_ROWS][8];
    UNROLL
    for (int r = 0; r < num_rows; ++r) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            sum[r][v] = load(sums + r * sum_stride + v * LANES) * rescale[r];
        }
    }
    for (int64_t j = 0; j < num_keys; ++j) {
        look_ahead(ahead);
        const float *value = values + j * key_stride;
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            const vector x = load(value + v * LANES);
            UNROLL
            for (int r = 0; r < num_rows; ++r) {
                sum[r][v] += tile[r * tile_stride + j] * x;
            }
        }
    }
    UNROLL
    for (int r = 0; r < num_rows; ++r) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            store(sums + r * sum_stride + v * LANES, sum[r][v]);
        }
    }
}

/* The columns that are less than a vector. */
static void weigh_last_columns(float *sums, int64_t sum_stride, const float *rescale,
                               const float *tile, int64_t tile_stride, int num_rows,
                               const float *values, int64_t key_stride, int64_t num_keys,
                               int64_t cols) {
    for (int r = 0; r < num_rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            float sum = sums[r * sum_stride + c] * rescale[r];
            for (int64_t j = 0; j < num_keys; ++j) {
                sum += tile[r * tile_stride + j] * load_scalar(values + j * key_stride + c);
            }
            sums[r * sum_stride + c] = sum;
        }
    }
}

INLINE void weigh_rows(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                       int64_t tile_stride, const int num_rows, const float *values,
                       int64_t key_stride, int64_t num_keys, int64_t value_dim, const int vectors,
                       attni_ahead *ahead) {
    int64_t c = 0;
    for (; c + vectors * LANES <= value_dim; c += vectors * LANES) {
        weigh_columns(sums + c, sum_stride, rescale, tile, tile_stride, num_rows, values + c,
                      key_stride, num_keys, vectors, ahead);
    }
    for (; c + LANES <= value_dim; c += LANES) {
        weigh_columns(sums + c, sum_stride, rescale, tile, tile_stride, num_rows, values + c,
                      key_stride, num_keys, 1, ahead);
    }
    weigh_last_columns(sums + c, sum_stride, rescale, tile, tile_stride, num_rows, values + c,
                       key_stride, num_keys, value_dim - c);
}

static void stream_weigh(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                         int64_t tile_stride, int32_t num_rows, const float *values,
                         int64_t key_stride, int64_t num_keys, int64_t value_dim,
                         attni_ahead *ahead) {
    switch (num_rows) {
    case 1:
        weigh_rows(sums, sum_stride, rescale, tile, tile_stride, 1, values, key_stride, num_keys,
                   value_dim, 8, ahead);
        break;
    case 2:
        weigh_rows(sums, sum_stride, rescale, tile, tile_stride, 2, values, key_stride, num_keys,
                   value_dim, 4, ahead);
        break;
    case 3:
        weigh_rows(sums, sum_stride, rescale, tile, tile_stride, 3, values, key_stride, num_keys,
                   value_dim, 4, ahead);
        break;
    default:
        weigh_rows(sums, sum_stride, rescale, tile, tile_stride, 4, values, key_stride, num_keys,
                   value_dim, 2, ahead);
        break;
    }
}

const attni_stream_kernels TABLE_NAME(stream_kernels) = {
    .score = stream_score,
    .exponentiate = stream_exponentiate,
    .weigh = stream_weigh,
};
