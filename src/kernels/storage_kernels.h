/* SPDX-License-Identifier: BSD-3-Clause
 *
 * storage_kernels.h: what lies between numbers as they are stored, float32, bfloat16 or float16,
 * and the float32 that the fused engine computes with. There is a table for each storage type.
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even. Elements may have any alignment;
 * strides count elements.
 */
#ifndef ATTNI_KERNELS_STORAGE_KERNELS_H
#define ATTNI_KERNELS_STORAGE_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct attni_storage_kernels {
    int64_t element_bytes;

    /* to[j] = from[j * stride], for j < n */
    void (*widen)(float *to, const void *from, int64_t stride, int64_t n);

    /* to[j * stride] = from[j], for j < n */
    void (*narrow)(void *to, int64_t stride, const float *from, int64_t n);

    /* to[c] += factor * from[c * stride], for c < n */
    void (*accumulate)(float *to, const void *from, int64_t stride, int64_t n, float factor);

    /* Rows into the lanes of a panel (see tile_kernels.h), which has `vectors` vectors:
     * panel[e * width + lane] = factor * rows[lane][e * stride]; lanes without a row may repeat
     * another's. */
    void (*pack_rows)(float *panel, int32_t vectors, const void *const *rows, int64_t stride,
                      int64_t head_dim, float factor);

    /* packed[c * chunk_stride + j * columns + i] = values[j * key_stride + (c * columns + i) *
     * col_stride], 0 past value_dim. columns are whole vectors. */
    void (*pack_values)(float *packed, int64_t chunk_stride, int64_t columns, const void *values,
                        int64_t key_stride, int64_t col_stride, int64_t num_keys,
                        int64_t value_dim);

    /* Whether all of num_keys rows of value_dim elements, columns col_stride apart, are finite. */
    bool (*are_finite)(const void *values, int64_t key_stride, int64_t col_stride, int64_t num_keys,
                       int64_t value_dim);
} attni_storage_kernels;

#endif
