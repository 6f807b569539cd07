/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dropout_place.h: the place of weights in the stream that dropout reads.
 */
#ifndef ATTNI_PROBLEM_DROPOUT_PLACE_H
#define ATTNI_PROBLEM_DROPOUT_PLACE_H

#include "problem/sdpa_problem.h"

/* Where the weights of a row begin. */
typedef struct attni_dropout_place {
    attni_dropout_stream stream;
    uint32_t head; /* and the low bits of the batch */
    uint32_t row;
    int64_t column; /* that of key 0 */
} attni_dropout_place;

/* Of a row of a head of the problem's batch `batch`. */
static inline attni_dropout_place attni_dropout_place_of(const attni_sdpa_problem *problem,
                                                         int64_t batch, int64_t head, int64_t row) {
    const attni_dropout *dropout = &problem->dropout;
    const uint64_t number = (uint64_t)(dropout->batch + problem->first_batch + batch);
    attni_dropout_place place = {
        .stream = dropout->stream,
        .head = (uint32_t)(dropout->head + head) | (uint32_t)(number << 16),
        .row = (uint32_t)(dropout->row + row),
        .column = dropout->column,
    };
    place.stream.batch = (uint32_t)(number >> 16);
    return place;
}

#endif
