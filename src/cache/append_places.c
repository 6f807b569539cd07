/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_places.c: reads which new rows a sequence has, and where they go.
 */
#include "cache/append_places.h"

#include "tensor/element.h"

attni_append_sequence attni_append_sequence_of(const attni_append_problem *problem, int64_t batch) {
    attni_append_sequence sequence = {.cache = attni_batch_sequence(&problem->cache, batch),
                                      .rows = {0, problem->num_rows}};
    sequence.room = sequence.cache.num_rows;
    if (problem->starts.is_present) {
        sequence.rows = attni_rows_between(&problem->starts, batch, problem->num_rows);
    }
    return sequence;
}

int64_t attni_append_place(const attni_append_problem *problem,
                           const attni_append_sequence *sequence, int64_t row) {
    const attni_sdpa_problem *cache = &problem->cache;
    const attni_operand *positions = &problem->positions;
    if (!positions->is_present) {
        const int64_t new_rows = sequence->rows.end - sequence->rows.begin;
        return sequence->cache.visibility.key_length - new_rows + row;
    }
    const int64_t batch_offset = attni_offset_of(sequence->cache.batch, cache->batch_rank,
                                                 cache->batch_shape, positions->strides);
    return attni_read_index(positions->data,
                            batch_offset + (sequence->rows.begin + row) *
                                               positions->strides[cache->batch_rank],
                            positions->dtype);
}
