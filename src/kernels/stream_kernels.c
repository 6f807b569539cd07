/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stream_kernels.c: a few query rows against keys and values that are read once.
 */
#include "kernels/stream_kernels.h"

#include "kernels/exponential.h"
#include "kernels/kernel_tables.h"
#include "kernels/storage.h"
#include "kernels/stream_source.h"
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

enum {
    KEYS_AT_ONCE = 2, /* meet a row's vector while it is in a register; their sums stay in others */
    STEP = 2 * LANES, /* features at a time */
    CACHE_LINE = 64,  /* bytes */
};

/* Asks for the next STEP elements of a row that is read soon, by the second-level cache: asking for
 * the first level occupies what loads need. The address may lie past the end, and is not read. */
INLINE void ask_for(const stored *soon) {
    UNROLL
    for (int byte = 0; byte < STEP * (int)sizeof(stored); byte += CACHE_LINE) {
        __builtin_prefetch((const char *)soon + byte, 0, 2);
    }
}

/* sums[k][r] += key[k] * query[r] for a vector of features of each. */
INLINE void multiply_vectors(const float *queries, int64_t head_dim, const vector *key,
                             const int num_keys, const int num_rows, const int part,
                             vector sums[KEYS_AT_ONCE][ATTNI_STREAM_ROWS][2]) {
    UNROLL
    for (int r = 0; r < num_rows; ++r) {
        const vector query = load(queries + r * head_dim);
        UNROLL
        for (int k = 0; k < num_keys; ++k) {
            sums[k][r][part] += key[k] * query;
        }
    }
}

/* Products of `num_keys` keys, one of each stream, with the rows, their lanes not yet added up:
 * lane i of products[k][r * LANES] holds every LANES-th term. Two sums for each where there are few
 * keep the multiply-add units busy. */
INLINE void multiply_keys(const float *queries, int64_t head_dim, const stored *const *keys,
                          const stored *const *soon, const int num_keys, const int num_rows,
                          vector (*products)[ATTNI_STREAM_ROWS * LANES]) {
    const int last_part = num_keys * num_rows < 6 ? 1 : 0;
    vector sums[KEYS_AT_ONCE][ATTNI_STREAM_ROWS][2] = {0};
    vector key[KEYS_AT_ONCE];
    int64_t e = 0;
    for (; e + STEP <= head_dim; e += STEP) {
        UNROLL
        for (int v = 0; v < 2; ++v) {
            UNROLL
            for (int k = 0; k < num_keys; ++k) {
                key[k] = load_stored(keys[k] + e + v * LANES);
                if (v == 0 && soon != NULL) {
                    ask_for(soon[k] + e);
                }
            }
            multiply_vectors(queries + e + v * LANES, head_dim, key, num_keys, num_rows,
                             v * last_part, sums);
        }
    }
    for (; e < head_dim; e += LANES) {
        const int64_t left = head_dim - e < LANES ? head_dim - e : LANES;
        UNROLL
        for (int k = 0; k < num_keys; ++k) {
            const vector last = load_stored_part(keys[k] + e, left);
            UNROLL
            for (int r = 0; r < num_rows; ++r) {
                sums[k][r][0] += last * load_part(queries + r * head_dim + e, left, 0);
            }
        }
    }
    UNROLL
    for (int k = 0; k < num_keys; ++k) {
        UNROLL
        for (int r = 0; r < num_rows; ++r) {
            products[k][r * LANES] = last_part == 1 ? sums[k][r][0] + sums[k][r][1] : sums[k][r][0];
        }
    }
}

/* The scores of `count` <= LANES keys from their products. */
INLINE void store_scores(float *tile, int64_t tile_stride, const int num_rows, int64_t count,
                         vector *products) {
    for (int r = 0; r < num_rows; ++r) {
        for (int64_t j = count; j < LANES; ++j) {
            products[r * LANES + j] = (vector){0};
        }
        const vector scores = sums_of_lanes(products + r * LANES);
        if (count == LANES) {
            store(tile + r * tile_stride, scores);
        } else {
            store_part(tile + r * tile_stride, scores, count);
        }
    }
}

/* Scores of num_keys keys from number `from` on: key j of every stream in turn. */
INLINE void score_rows(float *tile, int64_t tile_stride, const int num_rows, const float *queries,
                       int64_t head_dim, const attni_stream_rows *keys, const row_order order,
                       int64_t from, int64_t num_keys, const int streams) {
    vector products[ATTNI_STREAMS][ATTNI_STREAM_ROWS * LANES];
    streams_of_rows at;
    const bool asks = asks_ahead(num_rows, order);
    const int at_once = streams < KEYS_AT_ONCE ? streams : KEYS_AT_ONCE;
    const int64_t length = num_keys / streams;
    if (length == 0) {
        return;
    }
    start_streams(&at, streams, order, keys, from, length);
    for (int64_t first = 0; first < length; first += LANES) {
        const int64_t count = length - first < LANES ? length - first : LANES;
        for (int64_t j = 0; j < count; ++j) {
            take_step(&at, streams, order, asks, keys->stride, first + j);
            UNROLL
            for (int s = 0; s < streams; s += at_once) {
                multiply_keys(queries, head_dim, at.here + s, asks ? at.soon + s : NULL, at_once,
                              num_rows, (void *)&products[s][j]);
            }
        }
        for (int s = 0; s < streams; ++s) {
            store_scores(tile + s * length + first, tile_stride, num_rows, count, products[s]);
        }
    }
}

/* What the streams leave over is one more, short. */
INLINE void score_keys(float *tile, int64_t tile_stride, const int num_rows, const float *queries,
                       int64_t head_dim, const attni_stream_rows *keys, const row_order order,
                       int64_t num_keys) {
    const int64_t streamed = num_keys / ATTNI_STREAMS * ATTNI_STREAMS;
    score_rows(tile, tile_stride, num_rows, queries, head_dim, keys, order, 0, streamed,
               ATTNI_STREAMS);
    score_rows(tile + streamed, tile_stride, num_rows, queries, head_dim, keys, order, streamed,
               num_keys - streamed, 1);
}

INLINE void score_all(float *tile, int64_t tile_stride, const int num_rows, const float *queries,
                      int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys) {
    switch (order_of(keys, head_dim)) {
    case ROWS_ARE_DENSE:
        score_keys(tile, tile_stride, num_rows, queries, head_dim, keys, ROWS_ARE_DENSE, num_keys);
        break;
    case ROWS_ARE_APART:
        score_keys(tile, tile_stride, num_rows, queries, head_dim, keys, ROWS_ARE_APART, num_keys);
        break;
    default:
        score_keys(tile, tile_stride, num_rows, queries, head_dim, keys, ROWS_ARE_LISTED, num_keys);
        break;
    }
}

static void stream_score(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                         int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys) {
    switch (num_rows) {
    case 1:
        score_all(tile, tile_stride, 1, queries, head_dim, keys, num_keys);
        break;
    case 2:
        score_all(tile, tile_stride, 2, queries, head_dim, keys, num_keys);
        break;
    case 3:
        score_all(tile, tile_stride, 3, queries, head_dim, keys, num_keys);
        break;
    default:
        score_all(tile, tile_stride, 4, queries, head_dim, keys, num_keys);
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
        state->sum[r] = state->sum[r] * rescale[0][0] + exponentiate_row(row, num_keys, finite);
    }
}

/* ---- weighted values ---- */

static void scale_sums(float *sums, int64_t sum_stride, const float *rescale, int32_t num_rows,
                       int64_t value_dim) {
    for (int32_t r = 0; r < num_rows; ++r) {
        float *row = sums + r * sum_stride;
        int64_t c = 0;
        for (; c + LANES <= value_dim; c += LANES) {
            store(row + c, load(row + c) * rescale[r]);
        }
        for (; c < value_dim; ++c) {
            row[c] *= rescale[r];
        }
    }
}

/* `vectors` vectors of columns of add_keys. */
INLINE void add_columns(float *sums, int64_t sum_stride, const float *tile, int64_t tile_stride,
                        const int num_rows, const stored *const *values, int64_t column,
                        int64_t length, const int vectors, const int streams) {
    vector x[ATTNI_STREAMS][2];
    UNROLL
    for (int s = 0; s < streams; ++s) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            x[s][v] = load_stored(values[s] + column + v * LANES);
        }
    }
    UNROLL
    for (int r = 0; r < num_rows; ++r) {
        float *row = sums + r * sum_stride;
        vector sum[2];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            sum[v] = load(row + v * LANES);
        }
        UNROLL
        for (int s = 0; s < streams; ++s) {
            const float weight = tile[r * tile_stride + s * length];
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                sum[v] += weight * x[s][v];
            }
        }
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            store(row + v * LANES, sum[v]);
        }
    }
}

/* Adds the values of `streams` keys, whose weights are `length` apart from tile[r * tile_stride]
 * on. */
INLINE void add_keys(float *sums, int64_t sum_stride, const float *tile, int64_t tile_stride,
                     const int num_rows, const stored *const *values, const stored *const *soon,
                     int64_t length, int64_t value_dim, const int streams) {
    int64_t c = 0;
    for (; c + STEP <= value_dim; c += STEP) {
        UNROLL
        for (int s = 0; s < streams && soon != NULL; ++s) {
            ask_for(soon[s] + c);
        }
        add_columns(sums + c, sum_stride, tile, tile_stride, num_rows, values, c, length, 2,
                    streams);
    }
    for (; c + LANES <= value_dim; c += LANES) {
        add_columns(sums + c, sum_stride, tile, tile_stride, num_rows, values, c, length, 1,
                    streams);
    }
    for (; c < value_dim; ++c) {
        for (int r = 0; r < num_rows; ++r) {
            for (int s = 0; s < streams; ++s) {
                sums[r * sum_stride + c] +=
                    tile[r * tile_stride + s * length] * widened(stored_at(values[s] + c));
            }
        }
    }
}

/* Key j of every stream in turn, of num_keys keys from number `from` on. */
INLINE void weigh_streams(float *sums, int64_t sum_stride, const float *tile, int64_t tile_stride,
                          const int num_rows, const attni_stream_rows *values,
                          const row_order order, int64_t from, int64_t num_keys, int64_t value_dim,
                          const int streams) {
    streams_of_rows at;
    const bool asks = asks_ahead(num_rows, order);
    const int64_t length = num_keys / streams;
    if (length == 0) {
        return;
    }
    start_streams(&at, streams, order, values, from, length);
    for (int64_t j = 0; j < length; ++j) {
        take_step(&at, streams, order, asks, values->stride, j);
        add_keys(sums, sum_stride, tile + j, tile_stride, num_rows, at.here, asks ? at.soon : NULL,
                 length, value_dim, streams);
    }
}

INLINE void weigh_keys(float *sums, int64_t sum_stride, const float *tile, int64_t tile_stride,
                       const int num_rows, const attni_stream_rows *values, const row_order order,
                       int64_t num_keys, int64_t value_dim) {
    const int64_t streamed = num_keys / ATTNI_STREAMS * ATTNI_STREAMS;
    weigh_streams(sums, sum_stride, tile, tile_stride, num_rows, values, order, 0, streamed,
                  value_dim, ATTNI_STREAMS);
    weigh_streams(sums, sum_stride, tile + streamed, tile_stride, num_rows, values, order, streamed,
                  num_keys - streamed, value_dim, 1);
}

INLINE void weigh_rows(float *sums, int64_t sum_stride, const float *tile, int64_t tile_stride,
                       const int num_rows, const attni_stream_rows *values, int64_t num_keys,
                       int64_t value_dim) {
    switch (order_of(values, value_dim)) {
    case ROWS_ARE_DENSE:
        weigh_keys(sums, sum_stride, tile, tile_stride, num_rows, values, ROWS_ARE_DENSE, num_keys,
                   value_dim);
        break;
    case ROWS_ARE_APART:
        weigh_keys(sums, sum_stride, tile, tile_stride, num_rows, values, ROWS_ARE_APART, num_keys,
                   value_dim);
        break;
    default:
        weigh_keys(sums, sum_stride, tile, tile_stride, num_rows, values, ROWS_ARE_LISTED, num_keys,
                   value_dim);
        break;
    }
}

static void stream_weigh(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                         int64_t tile_stride, int32_t num_rows, const attni_stream_rows *values,
                         int64_t num_keys, int64_t value_dim) {
    scale_sums(sums, sum_stride, rescale, num_rows, value_dim);
    switch (num_rows) {
    case 1:
        weigh_rows(sums, sum_stride, tile, tile_stride, 1, values, num_keys, value_dim);
        break;
    case 2:
        weigh_rows(sums, sum_stride, tile, tile_stride, 2, values, num_keys, value_dim);
        break;
    case 3:
        weigh_rows(sums, sum_stride, tile, tile_stride, 3, values, num_keys, value_dim);
        break;
    default:
        weigh_rows(sums, sum_stride, tile, tile_stride, 4, values, num_keys, value_dim);
        break;
    }
}

const attni_stream_kernels STORED_TABLE_NAME(stream_kernels) = {
    .score = stream_score,
    .exponentiate = stream_exponentiate,
    .weigh = stream_weigh,
};
