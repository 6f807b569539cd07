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
#include "kernels/look_ahead.h"

/* Sizes of the blocks in registers. With 16 registers 12 results leave room for what they are made
 * of, with 32 registers 24 do; NEON's 32 also hold the keys' elements, which the others take from
 * memory. */
#if VECTOR_BYTES == 64
enum { KEYS_OF_3 = 8, KEYS_OF_2 = 12, KEYS_OF_1 = 16 };
#elif defined(__aarch64__)
enum { KEYS_OF_3 = 6, KEYS_OF_2 = 10, KEYS_OF_1 = 12 };
#else
enum { KEYS_OF_3 = 4, KEYS_OF_2 = 6, KEYS_OF_1 = 8 };
#endif
#if VECTOR_BYTES == 64
enum { ROWS = 12, FEWER_ROWS = 8, CHUNK_VECTORS = 2 };
#elif defined(__aarch64__)
enum { ROWS = 6, FEWER_ROWS = 4, CHUNK_VECTORS = 4 };
#else
enum { ROWS = 6, FEWER_ROWS = 4, CHUNK_VECTORS = 2 };
#endif
enum { CHUNK_COLUMNS = CHUNK_VECTORS * LANES };

/* ---- scores ---- */

/* `num_keys` rows of a tile; it and `vectors` are constants where this is inlined. */
INLINE void score_keys(float *tile, const int vectors, const float *panel, int64_t head_dim,
                       const float *keys, int64_t key_stride, const int num_keys, float *max) {
    vector scores[KEYS_OF_1][ATTNI_PANEL_VECTORS];
    UNROLL
    for (int j = 0; j < num_keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            scores[j][v] = (vector){0};
        }
    }
    for (int64_t e = 0; e < head_dim; ++e) {
        vector queries[ATTNI_PANEL_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            queries[v] = load(panel + (e * vectors + v) * LANES);
        }
        UNROLL
        for (int j = 0; j < num_keys; ++j) {
            const float key = load_scalar(keys + j * key_stride + e);
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                scores[j][v] += key * queries[v];
            }
        }
    }
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        vector largest = load(max + v * LANES);
        UNROLL
        for (int j = 0; j < num_keys; ++j) {
            store(tile + (j * vectors + v) * LANES, scores[j][v]);
            largest = larger(scores[j][v], largest);
        }
        store(max + v * LANES, largest);
    }
}

INLINE void score_tile(float *tile, const int vectors, const float *panel, int64_t head_dim,
                       const float *keys, int64_t key_stride, int64_t num_keys, const int block,
                       float *max, attni_ahead *ahead) {
    int64_t j = 0;
    for (; j + block <= num_keys; j += block) {
        look_ahead(ahead);
        score_keys(tile + j * vectors * LANES, vectors, panel, head_dim, keys + j * key_stride,
                   key_stride, block, max);
    }
    for (; j + 2 <= num_keys; j += 2) {
        score_keys(tile + j * vectors * LANES, vectors, panel, head_dim, keys + j * key_stride,
                   key_stride, 2, max);
    }
    if (j < num_keys) {
        score_keys(tile + j * vectors * LANES, vectors, panel, head_dim, keys + j * key_stride,
                   key_stride, 1, max);
    }
}

static void tile_score(float *tile, int32_t vectors, const float *panel, int64_t head_dim,
                       const float *keys, int64_t key_stride, int64_t num_keys, float *max,
                       attni_ahead *ahead) {
    if (vectors == 3) {
        score_tile(tile, 3, panel, head_dim, keys, key_stride, num_keys, KEYS_OF_3, max, ahead);
    } else if (vectors == 2) {
        score_tile(tile, 2, panel, head_dim, keys, key_stride, num_keys, KEYS_OF_2, max, ahead);
    } else {
        score_tile(tile, 1, panel, head_dim, keys, key_stride, num_keys, KEYS_OF_1, max, ahead);
    }
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

INLINE void start_sums(const attni_value_tile *tile, int row, const int rows, int64_t col,
                       const int vectors, vector sums[ROWS][CHUNK_VECTORS]) {
    if (!tile->is_added) {
        UNROLL
        for (int r = 0; r < rows; ++r) {
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] = (vector){0};
            }
        }
        return;
    }
    const float *old = tile->sums + row * tile->sum_stride + col;
    UNROLL
    for (int r = 0; r < rows; ++r) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            sums[r][v] = load(old + r * tile->sum_stride + v * LANES) * tile->rescale[row + r];
        }
    }
}

/* Columns of rows whose last vectors or rows lie past the edge of output: from sums, where the
 * whole block is. */
static void copy_edge(const attni_value_tile *tile, int row, int rows, int64_t col, int64_t cols) {
    const int64_t left = tile->value_dim - col;
    for (int r = row; r < row + rows && r < tile->num_rows; ++r) {
        memcpy(tile->outputs[r] + col, tile->sums + r * tile->sum_stride + col,
               (size_t)(left < cols ? left : cols) * sizeof(float));
    }
}

/* A block of sums to where it belongs. */
INLINE void store_sums(const attni_value_tile *tile, int row, const int rows, int64_t col,
                       const int vectors, vector sums[ROWS][CHUNK_VECTORS]) {
    const int cols = vectors * LANES;
    const bool is_whole = row + rows <= tile->num_rows && col + cols <= tile->value_dim;
    float *to = tile->sums + row * tile->sum_stride + col;
    if (tile->outputs == NULL) {
        UNROLL
        for (int r = 0; r < rows; ++r) {
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                store(to + r * tile->sum_stride + v * LANES, sums[r][v]);
            }
        }
        return;
    }
    UNROLL
    for (int r = 0; r < rows; ++r) {
        float *row_to = is_whole ? tile->outputs[row + r] + col : to + r * tile->sum_stride;
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            store(row_to + v * LANES, sums[r][v] * tile->factor[row + r]);
        }
    }
    if (!is_whole) {
        copy_edge(tile, row, rows, col, cols);
    }
}

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

/* All rows times `vectors` vectors of columns. A panel's width is a sum of the two block sizes;
 * blocks without a row are left out. */
INLINE void weigh_columns(const attni_value_tile *tile, int64_t col, const int vectors) {
    const int width = tile->vectors * LANES;
    for (int row = 0; row < tile->num_rows;) {
        const int left = width - row;
        if (left == FEWER_ROWS || left == 2 * FEWER_ROWS) {
            weigh_block(tile, row, FEWER_ROWS, col, vectors);
            row += FEWER_ROWS;
        } else {
            weigh_block(tile, row, ROWS, col, vectors);
            row += ROWS;
        }
    }
}

static void tile_weigh_values(const attni_value_tile *tile) {
    int64_t col = 0;
    for (; col + (CHUNK_VECTORS - 1) * LANES < tile->value_dim; col += CHUNK_COLUMNS) {
        weigh_columns(tile, col, CHUNK_VECTORS);
    }
    for (; col < tile->value_dim; col += LANES) {
        weigh_columns(tile, col, 1);
    }
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
