/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stream_source.h: rows of keys or values, in one run or in many, as streams side by side. For
 * sources that the build compiles for each instruction set and storage type.
 */
#ifndef ATTNI_KERNELS_STREAM_SOURCE_H
#define ATTNI_KERNELS_STREAM_SOURCE_H

#include <stdbool.h>

#include "kernels/storage.h"
#include "kernels/stream_kernels.h"

enum {
    ROWS_AHEAD = 8,         /* of a stream: what is asked for before it is needed */
    ROWS_THAT_NEED_TIME = 2 /* so many query rows keep the processor from finding out by itself */
};

/* Streams on their way. Each is `steps` rows behind its row, and none comes to the end of its run
 * for steps_left more. */
typedef struct streams_of_rows {
    const stored *here[ATTNI_STREAMS];
    const stored *soon[ATTNI_STREAMS]; /* ROWS_AHEAD rows later, or nearly */
    const stored *row[ATTNI_STREAMS];
    const void *const *run[ATTNI_STREAMS];
    const void *const *last_run; /* of all */
    int64_t left[ATTNI_STREAMS]; /* rows of the run, from `row` on */
    int64_t steps;
    int64_t steps_left;
} streams_of_rows;

/* Whether the first num_rows rows are of one run: then the compiler is told, since the way from run
 * to run takes as long as a short row. */
INLINE bool are_one_run(const attni_stream_rows *rows, int64_t num_rows) {
    return rows->first + num_rows <= rows->run_rows;
}

/* The processor finds out by itself what is read next, where it has time and runs are long. */
INLINE bool asks_ahead(const int num_query_rows, const bool is_one_run) {
    return num_query_rows >= ROWS_THAT_NEED_TIME || !is_one_run;
}

/* Streams of `length` rows each, of num_rows rows from number `from` on. */
INLINE void start_streams(streams_of_rows *at, const int streams, const bool is_one_run,
                          const attni_stream_rows *rows, int64_t from, int64_t length,
                          int64_t num_rows) {
    const int64_t last = rows->first + from + num_rows - 1;
    at->last_run = rows->runs + (is_one_run ? 0 : last / rows->run_rows);
    at->steps = 0;
    at->steps_left = INT64_MAX;
    UNROLL
    for (int s = 0; s < streams; ++s) {
        const int64_t place = rows->first + from + s * length;
        const int64_t run = is_one_run ? 0 : place / rows->run_rows;
        const int64_t row = is_one_run ? place : place - run * rows->run_rows;
        at->run[s] = rows->runs + run;
        at->row[s] = (const stored *)*at->run[s] + row * rows->stride;
        at->left[s] = rows->run_rows - row;
        at->steps_left = at->left[s] < at->steps_left ? at->left[s] : at->steps_left;
    }
}

/* Streams that are at the end of their runs go to the next ones, which there are, since this is
 * called before a step. */
static inline void change_runs(streams_of_rows *at, const int streams,
                               const attni_stream_rows *rows) {
    at->steps_left = INT64_MAX;
    for (int s = 0; s < streams; ++s) {
        at->row[s] += at->steps * rows->stride;
        at->left[s] -= at->steps;
        if (at->left[s] == 0) {
            at->row[s] = *++at->run[s];
            at->left[s] = rows->run_rows;
        }
        at->steps_left = at->left[s] < at->steps_left ? at->left[s] : at->steps_left;
    }
    at->steps = 0;
}

/* What a stream needs ROWS_AHEAD steps after the one at hand: of its run, or of the next one. */
INLINE const stored *row_ahead(const streams_of_rows *at, const int s,
                               const attni_stream_rows *rows) {
    const int64_t left = at->left[s] - at->steps;
    if (left > ROWS_AHEAD || at->run[s] == at->last_run) {
        return at->row[s] + (at->steps + ROWS_AHEAD) * rows->stride;
    }
    return (const stored *)at->run[s][1] + (ROWS_AHEAD - left) * rows->stride;
}

/* Goes step number `step`: sets where the streams are and, with `asks`, will be. */
INLINE void take_step(streams_of_rows *at, const int streams, const bool is_one_run,
                      const bool asks, const attni_stream_rows *rows, int64_t step) {
    if (!is_one_run && at->steps_left == 0) {
        change_runs(at, streams, rows);
    }
    const int64_t offset = (is_one_run ? step : at->steps) * rows->stride;
    UNROLL
    for (int s = 0; s < streams; ++s) {
        at->here[s] = at->row[s] + offset;
        if (asks) {
            at->soon[s] =
                is_one_run ? at->here[s] + ROWS_AHEAD * rows->stride : row_ahead(at, s, rows);
        }
    }
    if (!is_one_run) {
        --at->steps_left;
        ++at->steps;
    }
}

#endif
