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

/* The processor finds out by itself what is read next, where it has time and rows are side by side.
 */
INLINE bool asks_ahead(const int num_query_rows, const bool is_listed) {
    return num_query_rows >= ROWS_THAT_NEED_TIME || is_listed;
}

/* Streams of `length` rows each, the first from row `from` on. */
INLINE void start_streams(streams_of_rows *at, const int streams, const bool is_listed,
                          const attni_stream_rows *rows, int64_t from, int64_t length) {
    UNROLL
    for (int s = 0; s < streams; ++s) {
        const int64_t row = from + s * length;
        if (is_listed) {
            at->list[s] = rows->list + row;
        } else {
            at->first[s] = (const stored *)rows->first + row * rows->stride;
        }
    }
}

/* Sets where the streams are in step number `step` and, with `asks`, will be. */
INLINE void take_step(streams_of_rows *at, const int streams, const bool is_listed, const bool asks,
                      int64_t stride, int64_t step) {
    UNROLL
    for (int s = 0; s < streams; ++s) {
        at->here[s] = is_listed ? (const stored *)at->list[s][step] : at->first[s] + step * stride;
        if (asks) {
            at->soon[s] = is_listed ? (const stored *)at->list[s][step + ATTNI_STREAM_AHEAD]
                                    : at->here[s] + ATTNI_STREAM_AHEAD * stride;
        }
    }
}

#endif
