/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stream_kernels.h: what the fused engine computes with where there are too few query rows to fill
 * the lanes of a panel: keys and values stream by once, and the lanes are features. Sums are
 * float32; there is a table for each storage type that keys and values may have: float32, bfloat16,
 * float16; and int8, whose scales the caller sees to.
 *
 * What bounds such a call is the memory. Keys and values are read as ATTNI_STREAMS sequences side
 * by side, each a part of the keys: the hardware fetches several sequences ahead faster than one.
 * With one query row that is as fast as the memory. With more, multiplications stand between the
 * loads, and rows that lie apart (as those of one head among many in a row) are no sequence: there
 * the next rows are asked for, too.
 *
 * There are 1 to ATTNI_STREAM_ROWS rows. A tile is in memory as (row, key), rows tile_stride apart.
 * Keys and values may have any alignment and lie anywhere, row by row; a row's columns are side by
 * side.
 */
#ifndef ATTNI_KERNELS_STREAM_KERNELS_H
#define ATTNI_KERNELS_STREAM_KERNELS_H

#include <stdint.h>

#include "kernels/tile_kernels.h"

enum {
    ATTNI_STREAM_ROWS = 4,
    ATTNI_STREAMS = 4,
    ATTNI_STREAM_AHEAD = 8 /* rows of a stream: what is asked for before it is needed */
};

/* Rows of keys or values: row r is `stride` elements behind row r - 1, the first at `first`, or,
 * where there is a list, anywhere, at list[r]. Behind its rows a list has ATTNI_STREAM_AHEAD
 * addresses more, which may be asked for and are not read. Sums are the same either way. */
typedef struct attni_stream_rows {
    const void *const *list;
    const void *first;
    int64_t stride;
} attni_stream_rows;

typedef struct attni_stream_kernels {
    /* tile[r][j] = sum over e of queries[r * head_dim + e] * key j[e] */
    void (*score)(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                  int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys);

    /* As attni_tile_kernels.exponentiate, row r in lane r of the state; finds the maxima itself. */
    void (*exponentiate)(float *tile, int64_t tile_stride, int32_t num_rows, int64_t num_keys,
                         attni_panel_state *state);

    /* sums[r * sum_stride + c] = rescale[r] * sums + sum over j of tile[r][j] * value j[c] */
    void (*weigh)(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                  int64_t tile_stride, int32_t num_rows, const attni_stream_rows *values,
                  int64_t num_keys, int64_t value_dim);
} attni_stream_kernels;

#endif
