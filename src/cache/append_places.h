/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_places.h: which new rows a sequence has, and where they go.
 */
#ifndef ATTNI_CACHE_APPEND_PLACES_H
#define ATTNI_CACHE_APPEND_PLACES_H

#include "cache/append_problem.h"
#include "problem/batch_sequence.h"

enum { ATTNI_SKIPPED = -1 };

/* A sequence of the cache and its new rows. */
typedef struct attni_append_sequence {
    attni_sequence cache; /* its visibility says how many rows are in use */
    attni_interval rows;  /* of key and value */
    int64_t room;         /* rows of the cache */
} attni_append_sequence;

/* Reads starts and lengths, each once. */
attni_append_sequence attni_append_sequence_of(const attni_append_problem *problem, int64_t batch);

/* The row of the sequence where new row `row` (0: its first) goes, or a negative number: it is
 * skipped. It may be past the room. */
int64_t attni_append_place(const attni_append_problem *problem,
                           const attni_append_sequence *sequence, int64_t row);

#endif
