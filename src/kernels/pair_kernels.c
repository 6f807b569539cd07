/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pair_kernels.c: scores and weighted values by the dot product of pairs of bfloat16. Compiled for
 * instruction sets that have it; any other computes the same formula, more slowly, in tests.
 */
#include "kernels/pair_kernels.h"

#include "kernels/kernel_tables.h"
#include "kernels/storage.h"
#include "kernels/tile_blocks.h"
#include "kernels/transpose.h"

/* sums[i] + a[2 i + 1] * b[2 i + 1] + a[2 i] * b[2 i] */
INLINE vector add_products(vector sums, vector_bits a, vector_bits b) {
#if VECTOR_BYTES == 64 && defined(__AVX512BF16__)
    return (vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
#elif VECTOR_BYTES == 16 && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return (vector)vbfdotq_f32((float32x4_t)sums, (bfloat16x8_t)a, (bfloat16x8_t)b);
#else
    sums += (vector)(a & 0xffff0000U) * (vector)(b & 0xffff0000U);
    return sums + (vector)(a << 16) * (vector)(b << 16);
#endif
}

typedef uint32_t pair_in_memory __attribute__((aligned(1), may_alias));

INLINE vector_bits broadcast_pair(const void *from) {
    return *(const pair_in_memory *)from - (vector_bits){0};
}

INLINE vector_bits load_pairs(const uint32_t *from) {
    return (vector_bits)load((const float *)(const void *)from);
}

INLINE void store_pairs(uint32_t *to, vector_bits x) {
    store((float *)(void *)to, (vector)x);
}

INLINE uint32_t pair_of(stored first, stored second) {
    return first | (uint32_t)second << 16;
}

/* ---- queries ---- */

/* Pairs [first, first + LANES) of LANES rows, which are only moved. */
INLINE void pack_square(uint32_t *panel, int64_t width, const void *const *rows, int64_t first) {
    vector square[LANES];
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        square[i] = load((const float *)rows[i] + first);
    }
    transpose(square);
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        store_pairs(panel + (first + i) * width, (vector_bits)square[i]);
    }
}

static void pair_pack_rows(uint32_t *panel, int32_t vectors, const void *const *rows,
                           int64_t stride, int64_t head_dim) {
    const int64_t width = (int64_t)vectors * LANES;
    int64_t p = 0;
    for (; stride == 1 && 2 * (p + LANES) <= head_dim; p += LANES) {
        for (int64_t lane = 0; lane < width; lane += LANES) {
            pack_square(panel + lane, width, rows + lane, p);
        }
    }
    for (; 2 * p < head_dim; ++p) {
        for (int64_t lane = 0; lane < width; ++lane) {
            const stored *row = (const stored *)rows[lane] + 2 * p * stride;
            panel[p * width + lane] =
                pair_of(stored_at(row), 2 * p + 1 < head_dim ? stored_at(row + stride) : 0);
        }
    }
}

/* ---- scores ---- */

INLINE void score_keys(const score_call *call, float *tile, const char *keys, const int num_keys,
                       const int vectors) {
    const uint32_t *panel = call->panel;
    vector scores[KEYS_OF_1][ATTNI_PANEL_VECTORS];
    start_scores(num_keys, vectors, scores);
    for (int64_t p = 0; p < call->depth; ++p) {
        vector_bits queries[ATTNI_PANEL_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            queries[v] = load_pairs(panel + (p * vectors + v) * LANES);
        }
        UNROLL
        for (int j = 0; j < num_keys; ++j) {
            const vector_bits key =
                broadcast_pair(keys + j * call->key_bytes + p * (int64_t)sizeof(uint32_t));
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                scores[j][v] = add_products(scores[j][v], queries[v], key);
            }
        }
    }
    UNROLL
    for (int j = 0; j < num_keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            scores[j][v] *= call->scale;
        }
    }
    store_scores(call, tile, num_keys, vectors, scores);
}

static void pair_score(float *tile, int32_t vectors, const uint32_t *panel, int64_t num_pairs,
                       float scale, const void *keys, int64_t key_stride, int64_t num_keys,
                       float *max, attni_ahead *ahead) {
    const score_call call = {tile,  panel, num_pairs, keys, key_stride * (int64_t)sizeof(stored),
                             scale, max};
    score_all(&call, vectors, num_keys, ahead, score_keys);
}

/* ---- weights ---- */

/* The upper half is a's number, the lower b's, each rounded to nearest. */
INLINE vector_bits round_to_pairs(vector a, vector b) {
    return (rounded_bfloat16(a) & 0xffff0000U) | rounded_bfloat16(b) >> 16;
}

INLINE vector weight_at(const float *tile, int64_t width, int64_t key, int64_t num_keys) {
    return key >= 0 && key < num_keys ? load(tile + key * width) : (vector){0};
}

static void pair_pair_weights(uint32_t *pairs, const float *tile, int32_t vectors, int64_t num_keys,
                              int32_t parity) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t key = -parity; key < num_keys; key += 2) {
        for (int64_t lane = 0; lane < width; lane += LANES) {
            const vector first = weight_at(tile + lane, width, key, num_keys);
            const vector second = weight_at(tile + lane, width, key + 1, num_keys);
            store_pairs(pairs + (key + parity) / 2 * width + lane, round_to_pairs(second, first));
        }
    }
}

/* ---- weighted values ---- */

/* The pairs of LANES columns, the first of which is `col`, of a key and the next; a row that is
 * NULL has zeroes. */
INLINE vector_bits column_pairs(const stored *first, const stored *second, int64_t col_stride,
                                int64_t left) {
    if (col_stride == 1 && left >= LANES) {
        const vector_bits low = first != NULL ? bits_of(load_halves(first)) : (vector_bits){0};
        const vector_bits high = second != NULL ? bits_of(load_halves(second)) : (vector_bits){0};
        return low | high << 16;
    }
    uint32_t lanes[LANES] = {0};
    for (int64_t i = 0; i < LANES && i < left; ++i) {
        lanes[i] = pair_of(first != NULL ? stored_at(first + i * col_stride) : 0,
                           second != NULL ? stored_at(second + i * col_stride) : 0);
    }
    return load_pairs(lanes);
}

static void pair_pack_values(uint32_t *packed, int64_t chunk_stride, int64_t columns,
                             const void *values, int64_t key_stride, int64_t col_stride,
                             int64_t num_keys, int32_t parity, int64_t value_dim) {
    for (int64_t col = 0; col < value_dim; col += LANES) {
        uint32_t *chunk = packed + col / columns * chunk_stride + col % columns;
        const stored *column = (const stored *)values + col * col_stride;
        for (int64_t key = -parity; key < num_keys; key += 2) {
            const stored *first = key >= 0 ? column + key * key_stride : NULL;
            const stored *second = key + 1 < num_keys ? column + (key + 1) * key_stride : NULL;
            store_pairs(chunk + (key + parity) / 2 * columns,
                        column_pairs(first, second, col_stride, value_dim - col));
        }
    }
    for (int64_t col = (value_dim + LANES - 1) / LANES * LANES; col % columns != 0; col += LANES) {
        uint32_t *chunk = packed + col / columns * chunk_stride + col % columns;
        for (int64_t pair = 0; 2 * pair < num_keys + parity; ++pair) {
            store_pairs(chunk + pair * columns, (vector_bits){0});
        }
    }
}

INLINE void weigh_block(const attni_value_tile *tile, int row, const int rows, int64_t col,
                        const int vectors) {
    vector sums[ROWS][CHUNK_VECTORS];
    start_sums(tile, row, rows, col, vectors, sums);
    const int64_t width = (int64_t)tile->vectors * LANES;
    const int64_t end = tile->end[row + rows - 1];
    const uint32_t *weights = (const uint32_t *)(const void *)tile->weights + row;
    const uint32_t *values = (const uint32_t *)(const void *)tile->values +
                             col / CHUNK_COLUMNS * tile->chunk_stride + col % CHUNK_COLUMNS;
    for (int64_t p = tile->begin[row]; p < end; ++p) {
        vector_bits value[CHUNK_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            value[v] = load_pairs(values + p * tile->key_stride + v * LANES);
        }
        UNROLL
        for (int r = 0; r < rows; ++r) {
            const vector_bits weight = broadcast_pair(weights + p * width + r);
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] = add_products(sums[r][v], value[v], weight);
            }
        }
    }
    store_sums(tile, row, rows, col, vectors, sums);
}

static void pair_weigh_values(const attni_value_tile *tile) {
    weigh_all(tile, weigh_block);
}

const attni_pair_kernels STORED_TABLE_NAME(pair_kernels) = {
    .pack_rows = pair_pack_rows,
    .score = pair_score,
    .pair_weights = pair_pair_weights,
    .pack_values = pair_pack_values,
    .weigh_values = pair_weigh_values,
};
