/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pair_kernels.h: what the fused engine computes a tile with where query, key and value are
 * bfloat16 and the CPU multiplies pairs of them: each 32 bits of a vector hold two numbers, and an
 * instruction adds both products to a float32. Panels, tiles and chunks are those of
 * tile_kernels.h, with pairs for elements.
 *
 * Queries and keys are paired along their features, so that a key's pair is broadcast from where it
 * lies; weights and values are paired along the keys, an even one and the next, counted from the
 * sequence's first key: which keys meet in a pair follows from the sequence alone. What a pair
 * lacks is 0. Weights are rounded to bfloat16; numbers that are subnormal in float32 count as 0,
 * but for baseline, which is there for tests.
 */
#ifndef ATTNI_KERNELS_PAIR_KERNELS_H
#define ATTNI_KERNELS_PAIR_KERNELS_H

#include <stdint.h>

#include "kernels/tile_kernels.h"

typedef struct attni_pair_kernels {
    /* panel[p * width + lane] = elements 2 p and 2 p + 1 of rows[lane], which are stride apart; 0
     * past head_dim. */
    void (*pack_rows)(uint32_t *panel, int32_t vectors, const void *const *rows, int64_t stride,
                      int64_t head_dim);

    /* tile[j][lane] = scale * sum over the pairs of panel and key j; a key's pairs lie side by
     * side, key_stride elements from those of the next. max and ahead as in
     * attni_tile_kernels.score. */
    void (*score)(float *tile, int32_t vectors, const uint32_t *panel, int64_t num_pairs,
                  float scale, const void *keys, int64_t key_stride, int64_t num_keys, float *max,
                  attni_ahead *ahead);

    /* pairs[p * width + lane] = weights of keys 2 p - parity and the next of a tile of num_keys. */
    void (*pair_weights)(uint32_t *pairs, const float *tile, int32_t vectors, int64_t num_keys,
                         int32_t parity);

    /* packed[c * chunk_stride + p * columns + i] = values of keys 2 p - parity and the next in
     * column c * columns + i; columns are whole vectors. */
    void (*pack_values)(uint32_t *packed, int64_t chunk_stride, int64_t columns, const void *values,
                        int64_t key_stride, int64_t col_stride, int64_t num_keys, int32_t parity,
                        int64_t value_dim);

    /* As attni_tile_kernels.weigh_values; weights, values, strides and bounds are of pairs. */
    void (*weigh_values)(const attni_value_tile *tile);
} attni_pair_kernels;

#endif
