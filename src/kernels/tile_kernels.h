/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tile_kernels.h: what the fused engine computes a tile of scores with. Float32 only.
 *
 * A PANEL is a few query rows side by side, one in each lane of 1 to 3 vectors. A TILE is what a
 * panel has to do with a stretch of keys, in memory as (key, lane): element (j, lane) at
 * tile[j * width + lane], width = vectors * lanes_per_vector. So the largest score and the sum of a
 * row are vertical operations, a key is a scalar that meets a vector of queries, and in
 * weights * values a weight is a scalar that meets a vector of value's columns.
 *
 * Lanes without a row are computed like the others; their numbers mean nothing and reach nobody.
 * Kernels get checked pointers and sizes, cannot fail and do not allocate. Pointers may have any
 * alignment but those of tiles, panels and states, which are the engine's own memory.
 */
#ifndef ATTNI_KERNELS_TILE_KERNELS_H
#define ATTNI_KERNELS_TILE_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ahead.h"

enum {
    ATTNI_PANEL_VECTORS =
        3,                 /* of the widest panel: its scores with 4 or 8 keys fill the registers */
    ATTNI_PANEL_LANES = 48 /* of the widest panel of the widest vectors */
};

/* What a panel's rows have gathered over the tiles so far. Weights of softmax are relative to the
 * row's maximum: exp(score - max). */
typedef struct attni_panel_state {
    float max[ATTNI_PANEL_LANES];     /* the largest score, the tile at hand included */
    float old_max[ATTNI_PANEL_LANES]; /* without the tile at hand */
    float sum[ATTNI_PANEL_LANES];     /* of the weights (of their magnitudes where not softmax) */
    float rescale[ATTNI_PANEL_LANES]; /* exp(old_max - max): what earlier sums are to be multiplied
                                         with */
} attni_panel_state;

/* weights * values of a tile:
 *
 *     sums = rescale * sums + weights^T values        or, without is_added, weights^T values
 *     outputs = factor * sums                         if outputs is not NULL, instead of storing it
 *
 * Columns are handled value_columns at a time: column chunk c of key j is at
 * values + c * chunk_stride + j * key_stride. Where value_dim is no multiple of the lanes, the
 * values must be packed, since whole vectors are read. */
typedef struct attni_value_tile {
    const float *weights;
    int32_t vectors;
    int32_t num_rows; /* lanes that are rows; what becomes of others is left open */
    const int32_t
        *begin; /* lane r needs keys [begin[r], end[r]) of the tile only; both ascend; the */
    const int32_t *end; /* weights of the other keys are 0 */
    const float *values;
    int64_t key_stride;
    int64_t chunk_stride;
    int64_t value_dim;
    bool is_added;
    const float *rescale;
    float *sums; /* row r at sums + r * sum_stride, room for whole chunks */
    int64_t sum_stride;
    float *const *outputs; /* row r's first element; may be that of its own sums */
    const float *factor;
} attni_value_tile;

typedef struct attni_tile_kernels {
    int32_t lanes;         /* of a vector */
    int32_t value_columns; /* of a chunk */

    /* tile[j][lane] = sum over e of panel[e][lane] * keys[j * key_stride + e]; max gets the largest
     * of itself and these, NaN aside. Every few keys the next rows of `ahead` are asked for. */
    void (*score)(float *tile, int32_t vectors, const float *panel, int64_t head_dim,
                  const float *keys, int64_t key_stride, int64_t num_keys, float *max,
                  attni_ahead *ahead);

    /* max = the largest of itself and the tile's elements, NaN aside. */
    void (*find_max)(const float *tile, int32_t vectors, int64_t num_keys, float *max);

    /* tile = exp(tile - max), and brings rescale and sum up to date. -inf becomes exactly 0; a row
     * all -inf becomes all 0. Relative error of each: below 2 units in the last place, beside the
     * rounding of tile - max; results below the smallest normal number may become 0. */
    void (*exponentiate)(float *tile, int32_t vectors, int64_t num_keys, attni_panel_state *state);

    /* sum += |tile|, so that it is 0 if and only if every weight of a row is. */
    void (*add_magnitudes)(const float *tile, int32_t vectors, int64_t num_keys, float *sum);

    void (*weigh_values)(const attni_value_tile *tile);
} attni_tile_kernels;

#endif
