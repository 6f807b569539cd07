/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stream_source.h: rows of keys or values, side by side or listed, as streams. For sources that the
 * build compiles for each instruction set and storage type.
 */
#ifndef ATTNI_KERNELS_STREAM_SOURCE_H
#define ATTNI_KERNELS_STREAM_SOURCE_H

#include <stdbool.h>

#include "kernels/storage.h"
#include "kernels/stream_kernels.h"

enum {
    ROWS_THAT_NEED_TIME = 2 /* so many query rows keep the processor from finding out itself */
};

/* Streams on their way. */
typedef struct streams_of_rows {
    const stored *here[ATTNI_STREAMS];
    const stored *soon[ATTNI_STREAMS];      /* ATTNI_STREAM_AHEAD rows later */
    const stored *first[ATTNI_STREAMS];     /* of rows side by side */
    const void *const *list[ATTNI_STREAMS]; /* of the others */
} streams_of_rows;

/* How rows follow one another: without a gap; at a distance, as those of one head among many that
 * lie together in a row; or as a list has it. */
typedef enum row_order { ROWS_ARE_DENSE, ROWS_ARE_APART, ROWS_ARE_LISTED } row_order;

INLINE row_order order_of(const attni_stream_rows *rows, int64_t width) {
    if (rows->list != NULL) {
        return ROWS_ARE_LISTED;
    }
    return rows->stride == width ? ROWS_ARE_DENSE : ROWS_ARE_APART;
}

/* The processor finds out by itself what is read next, where it has time and rows are dense. */
INLINE bool asks_ahead(const int num_query_rows, const row_order order) {
    return num_query_rows >= ROWS_THAT_NEED_TIME || order != ROWS_ARE_DENSE;
}

/* Streams of `length` rows each, the first from row `from` on. */
INLINE void start_streams(streams_of_rows *at, const int streams, const row_order order,
                          const attni_stream_rows *rows, int64_t from, int64_t length) {
    UNROLL
    for (int s = 0; s < streams; ++s) {
        const int64_t row = from + s * length;
        if (order == ROWS_ARE_LISTED) {
            at->list[s] = rows->list + row;
        } else {
            at->first[s] = (const stored *)rows->first + row * rows->stride;
        }
    }
}

/* Sets where the streams are in step number `step` and, with `asks`, will be. */
INLINE void take_step(streams_of_rows *at, const int streams, const row_order order,
                      const bool asks, int64_t stride, int64_t step) {
    UNROLL
    for (int s = 0; s < streams; ++s) {
        const bool is_listed = order == ROWS_ARE_LISTED;
        at->here[s] = is_listed ? (const stored *)at->list[s][step] : at->first[s] + step * stride;
        if (asks) {
            at->soon[s] = is_listed ? (const stored *)at->list[s][step + ATTNI_STREAM_AHEAD]
                                    : at->here[s] + ATTNI_STREAM_AHEAD * stride;
        }
    }
}

#endif
