/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tile_blocks.h: how a tile is cut into blocks whose sums stay in registers, a few keys times a
 * panel of queries and a few rows times a chunk of value columns, and how these begin and end. For
 * sources that the build compiles for each instruction set; what is multiplied is theirs.
 */
#ifndef ATTNI_KERNELS_TILE_BLOCKS_H
#define ATTNI_KERNELS_TILE_BLOCKS_H

#include "kernels/look_ahead.h"
#include "kernels/tile_kernels.h"
#include "kernels/vectors.h"

/* ---- scores ---- */

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

/* What the blocks of a tile's scores have in common. */
typedef struct score_call {
    float *tile;
    const void *panel;
    int64_t depth; /* terms of a sum */
    const char *keys;
    int64_t key_bytes; /* from one key to the next */
    float scale;
    float *max;
} score_call;

INLINE void start_scores(const int num_keys, const int vectors,
                         vector scores[KEYS_OF_1][ATTNI_PANEL_VECTORS]) {
    UNROLL
    for (int j = 0; j < num_keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            scores[j][v] = (vector){0};
        }
    }
}

INLINE void store_scores(const score_call *call, float *tile, const int num_keys, const int vectors,
                         vector scores[KEYS_OF_1][ATTNI_PANEL_VECTORS]) {
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        vector largest = load(call->max + v * LANES);
        UNROLL
        for (int j = 0; j < num_keys; ++j) {
            store(tile + (j * vectors + v) * LANES, scores[j][v]);
            largest = larger(scores[j][v], largest);
        }
        store(call->max + v * LANES, largest);
    }
}

/* The scores of `num_keys` keys; it and `vectors` are constants where this is inlined. */
typedef void (*score_function)(const score_call *call, float *tile, const char *keys,
                               const int num_keys, const int vectors);

INLINE void score_blocks(const score_call *call, const int vectors, int64_t num_keys,
                         const int block, attni_ahead *ahead, score_function score_keys) {
    int64_t j = 0;
    for (; j + block <= num_keys; j += block) {
        look_ahead(ahead);
        score_keys(call, call->tile + j * vectors * LANES, call->keys + j * call->key_bytes, block,
                   vectors);
    }
    if (j + block / 2 <= num_keys) { /* of keys in blocks of 64 or 128, say */
        score_keys(call, call->tile + j * vectors * LANES, call->keys + j * call->key_bytes,
                   block / 2, vectors);
        j += block / 2;
    }
    for (; j + 2 <= num_keys; j += 2) {
        score_keys(call, call->tile + j * vectors * LANES, call->keys + j * call->key_bytes, 2,
                   vectors);
    }
    if (j < num_keys) {
        score_keys(call, call->tile + j * vectors * LANES, call->keys + j * call->key_bytes, 1,
                   vectors);
    }
}

INLINE void score_all(const score_call *call, int32_t vectors, int64_t num_keys, attni_ahead *ahead,
                      score_function score_keys) {
    if (vectors == 3) {
        score_blocks(call, 3, num_keys, KEYS_OF_3, ahead, score_keys);
    } else if (vectors == 2) {
        score_blocks(call, 2, num_keys, KEYS_OF_2, ahead, score_keys);
    } else {
        score_blocks(call, 1, num_keys, KEYS_OF_1, ahead, score_keys);
    }
}

/* ---- weighted values ---- */

/* With 16 registers 12 sums leave room for what they are made of, with 32 registers 24 do. */
#if VECTOR_BYTES == 64
enum { ROWS = 12, FEWER_ROWS = 8, CHUNK_VECTORS = 2 };
#elif defined(__aarch64__)
enum { ROWS = 6, FEWER_ROWS = 4, CHUNK_VECTORS = 4 };
#else
enum { ROWS = 6, FEWER_ROWS = 4, CHUNK_VECTORS = 2 };
#endif
enum { CHUNK_COLUMNS = CHUNK_VECTORS * LANES };

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

/* The sums of rows [row, row + rows) and `vectors` vectors of columns from col on; rows and vectors
 * are constants where this is inlined. */
typedef void (*weigh_function)(const attni_value_tile *tile, int row, const int rows, int64_t col,
                               const int vectors);

/* All rows times `vectors` vectors of columns. A panel's width is a sum of the two block sizes;
 * blocks without a row are left out. */
INLINE void weigh_columns(const attni_value_tile *tile, int64_t col, const int vectors,
                          weigh_function weigh_block) {
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

/* All rows times all columns. */
INLINE void weigh_all(const attni_value_tile *tile, weigh_function weigh_block) {
    int64_t col = 0;
    for (; col + (CHUNK_VECTORS - 1) * LANES < tile->value_dim; col += CHUNK_COLUMNS) {
        weigh_columns(tile, col, CHUNK_VECTORS, weigh_block);
    }
    for (; col < tile->value_dim; col += LANES) {
        weigh_columns(tile, col, 1, weigh_block);
    }
}

#endif
