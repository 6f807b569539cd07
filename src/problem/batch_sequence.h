/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch_sequence.h: what differs from batch to batch: what positions and lengths allow, and where
 * the sequence's keys are.
 */
#ifndef ATTNI_PROBLEM_BATCH_SEQUENCE_H
#define ATTNI_PROBLEM_BATCH_SEQUENCE_H

#include "base/checked_size.h"
#include "problem/sdpa_problem.h"
#include "tensor/element.h"

/* The keys of one batch. Whatever there is to read, they lie within key and value. */
typedef struct attni_sequence {
    int64_t batch;
    attni_visibility visibility; /* key_length is 0 to S, and no more than there are rows */
    int64_t mask_start;          /* key of a placed mask's first column: -num_columns to S */
    int64_t num_rows;            /* it has room for */
    int64_t first_row;           /* of key and value; 0 but with key_starts */
    int64_t first_entry;         /* of pages.table, in elements from its data */
    int64_t num_entries;         /* of it */
} attni_sequence;

/* Reads query_offset, key_lengths, mask_start, key_starts and pages.starts, each once. */
attni_sequence attni_batch_sequence(const attni_sdpa_problem *problem, int64_t batch);

/* What the table holds at a sequence's `place`. */
static inline int64_t attni_page_entry(const attni_sdpa_problem *problem,
                                       const attni_sequence *sequence, int64_t place) {
    const attni_operand *table = &problem->pages.table;
    const int64_t stride = table->strides[problem->batch_rank];
    return attni_read_index(table->data, sequence->first_entry + place * stride, table->dtype);
}

/* The number of the page that has rows of a sequence, by its place among those: 0 to pages.count -
 * 1 whatever there is to read. A place past the entries is asked for by nobody who needs what is
 * there. */
static inline int64_t attni_page_of(const attni_sdpa_problem *problem,
                                    const attni_sequence *sequence, int64_t place) {
    if (place >= sequence->num_entries) {
        return 0;
    }
    const int64_t page = attni_page_entry(problem, sequence, place);
    return attni_clamp(page, 0, problem->pages.count - 1);
}

/* [starts[batch], starts[batch + 1]) of `total` rows, each read once. */
attni_interval attni_rows_between(const attni_operand *starts, int64_t batch, int64_t total);

#endif
