/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tile_kernels.c: scores, weights and weighted values of a tile, the three loops in which the fused
 * engine spends its time. Each product keeps a block of results in registers: a few keys times a
 * panel of queries, a few rows times a chunk of value columns, so many that the multiply-add units
 * never wait for one another or for loads.
 */
#include "kernels/tile_kernels.h"

#include "kernels/exponential.h"
#include "kernels/kernel_tables.h"
#include "kernels/tile_blocks.h"

/* ---- scores ---- */

/* `num_keys` rows of a tile; it and `vectors` are constants where this is inlined. */
INLINE void score_keys(const score_call *call, float *tile, const char *keys, const int num_keys,
                       const int vectors) {
    vector scores[KEYS_OF_1][ATTNI_PANEL_VECTORS];
    start_scores(num_keys, vectors, scores);
    for (int64_t e = 0; e < call->depth; ++e) {
        const float *panel = call->panel;
        vector queries[ATTNI_PANEL_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            queries[v] = load(panel + (e * vectors + v) * LANES);
        }
        UNROLL
        for (int j = 0; j < num_keys; ++j) {
            const float key =
                load_scalar((const float *)(const void *)(keys + j * call->key_bytes) + e);
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                scores[j][v] += key * queries[v];
            }
        }
    }
    store_scores(call, tile, num_keys, vectors, scores);
}

static void tile_score(float *tile, int32_t vectors, const float *panel, int64_t head_dim,
                       const float *keys, int64_t key_stride, int64_t num_keys, float *max,
                       attni_ahead *ahead) {
    const score_call call = {
        tile, panel, head_dim, (const char *)keys, key_stride * (int64_t)sizeof(float), 1, max};
    score_all(&call, vectors, num_keys, ahead, score_keys);
}

static void tile_find_max(const float *tile, int32_t vectors, int64_t num_keys, float *max_lanes) {
    for (int v = 0; v < vectors; ++v) {
        vector max = load(max_lanes + v * LANES);
        for (int64_t j = 0; j < num_keys; ++j) {
            max = larger(load(tile + (j * vectors + v) * LANES), max);
        }
        store(max_lanes + v * LANES, max);
    }
}

/* ---- weights ---- */

INLINE void exponentiate_tile(float *tile, const int vectors, int64_t num_keys,
                              attni_panel_state *state) {
    vector max[ATTNI_PANEL_VECTORS];
    vector sum[ATTNI_PANEL_VECTORS];
    vector x[ATTNI_PANEL_VECTORS];
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        max[v] = finite_max(load(state->max + v * LANES));
        sum[v] = (vector){0};
    }
    for (int64_t j = 0; j < num_keys; ++j) {
        float *row = tile + j * vectors * LANES;
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            x[v] = load(row + v * LANES) - max[v];
        }
        exponentiate(x, vectors);
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            store(row + v * LANES, x[v]);
            sum[v] += x[v];
        }
    }
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        x[v] = load(state->old_max + v * LANES) - max[v];
    }
    exponentiate(x, vectors);
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        store(state->rescale + v * LANES, x[v]);
        store(state->sum + v * LANES, load(state->sum + v * LANES) * x[v] + sum[v]);
    }
}

static void tile_exponentiate(float *tile, int32_t vectors, int64_t num_keys,
                              attni_panel_state *state) {
    if (vectors == 3) {
        exponentiate_tile(tile, 3, num_keys, state);
    } else if (vectors == 2) {
        exponentiate_tile(tile, 2, num_keys, state);
    } else {
        exponentiate_tile(tile, 1, num_keys, state);
    }
}

static void tile_add_magnitudes(const float *tile, int32_t vectors, int64_t num_keys,
                                float *sum_lanes) {
    for (int v = 0; v < vectors; ++v) {
        vector sum = load(sum_lanes + v * LANES);
        for (int64_t j = 0; j < num_keys; ++j) {
            sum += absolute(load(tile + (j * vectors + v) * LANES));
        }
        store(sum_lanes + v * LANES, sum);
    }
}

/* ---- weighted values ---- */

/* Rows [row, row + rows) times `vectors` vectors of columns from col on; rows and vectors are
 * constants where this is inlined. */
INLINE void weigh_block(const attni_value_tile *tile, int row, const int rows, int64_t col,
                        const int vectors) {
    vector sums[ROWS][CHUNK_VECTORS];
    start_sums(tile, row, rows, col, vectors, sums);
    const int64_t width = (int64_t)tile->vectors * LANES;
    const int64_t end = tile->end[row + rows - 1];
    const int64_t key_stride = tile->key_stride;
    const float *weights = tile->weights + row;
    const float *values =
        tile->values + col / CHUNK_COLUMNS * tile->chunk_stride + col % CHUNK_COLUMNS;
    for (int64_t j = tile->begin[row]; j < end; ++j) {
        vector value[CHUNK_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            value[v] = load(values + j * key_stride + v * LANES);
        }
        UNROLL
        for (int r = 0; r < rows; ++r) {
            const float weight = weights[j * width + r];
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] += weight * value[v];
            }
        }
    }
    store_sums(tile, row, rows, col, vectors, sums);
}

static void tile_weigh_values(const attni_value_tile *tile) {
    weigh_all(tile, weigh_block);
}

const attni_tile_kernels TABLE_NAME(tile_kernels) = {
    .lanes = LANES,
    .value_columns = CHUNK_COLUMNS,
    .score = tile_score,
    .find_max = tile_find_max,
    .exponentiate = tile_exponentiate,
    .add_magnitudes = tile_add_magnitudes,
    .weigh_values = tile_weigh_values,
};
