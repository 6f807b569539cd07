/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch_sequence.c: reads what differs from batch to batch. It was checked, but another thread may
 * have written it since: a wrong number of keys is its own affair, keys that are not there would be
 * everybody's. So each number is read once and clamped.
 */
#include "problem/batch_sequence.h"

#include "base/checked_size.h"
#include "tensor/element.h"

/* An option of indices with the batch axes; `absent` if it was not given. */
static int64_t batch_option(const attni_sdpa_problem *problem, const attni_operand *operand,
                            int64_t batch, int64_t absent) {
    return operand->is_present
               ? attni_read_index(operand->data,
                                  attni_offset_of(batch, problem->batch_rank, problem->batch_shape,
                                                  operand->strides),
                                  operand->dtype)
               : absent;
}

attni_interval attni_rows_between(const attni_operand *starts, int64_t batch, int64_t total) {
    const int64_t stride = starts->strides[0];
    const int64_t begin = attni_read_index(starts->data, batch * stride, starts->dtype);
    const int64_t end = attni_read_index(starts->data, (batch + 1) * stride, starts->dtype);
    attni_interval rows = {attni_clamp(begin, 0, total), 0};
    rows.end = attni_clamp(end, rows.begin, total);
    return rows;
}

/* The entries of the table that are a sequence's. */
static void find_entries(const attni_sdpa_problem *problem, attni_sequence *sequence) {
    const attni_pages *pages = &problem->pages;
    sequence->num_entries = pages->num_entries;
    if (!pages->starts.is_present) {
        sequence->first_entry = attni_offset_of(sequence->batch, problem->batch_rank,
                                                problem->batch_shape, pages->table.strides);
        return;
    }
    const attni_interval entries =
        attni_rows_between(&pages->starts, sequence->batch, pages->num_entries);
    sequence->first_entry = entries.begin * pages->table.strides[problem->batch_rank];
    sequence->num_entries = entries.end - entries.begin;
}

/* Sets where the keys are, and returns how many there is room for. */
static int64_t find_rows(const attni_sdpa_problem *problem, attni_sequence *sequence) {
    if (problem->pages.rows > 0) {
        find_entries(problem, sequence);
        return sequence->num_entries * problem->pages.rows;
    }
    if (problem->key_starts.is_present) {
        const attni_interval rows =
            attni_rows_between(&problem->key_starts, sequence->batch, problem->key_rows);
        sequence->first_row = rows.begin;
        return rows.end - rows.begin;
    }
    return problem->key_rows;
}

/* Further away than that a mask hides all keys or none, too. Returns the key behind it. */
static int64_t place_mask(const attni_sdpa_problem *problem, attni_sequence *sequence) {
    if (!problem->mask_start.is_present) {
        return INT64_MAX;
    }
    const int64_t columns = problem->masks[ATTNI_MASK].num_columns;
    const int64_t start = batch_option(problem, &problem->mask_start, sequence->batch, 0);
    sequence->mask_start = attni_clamp(start, -columns, problem->src_len);
    return attni_saturating_add(sequence->mask_start, columns);
}

attni_sequence attni_batch_sequence(const attni_sdpa_problem *problem, int64_t batch) {
    attni_sequence sequence = {.batch = batch};
    sequence.num_rows = find_rows(problem, &sequence);
    const int64_t most = attni_min(sequence.num_rows, problem->src_len);
    const int64_t length = batch_option(problem, &problem->key_lengths, batch, most);
    const int64_t key_length = attni_clamp(length, 0, most);
    const int64_t first_position = problem->aligns_end ? key_length - problem->tgt_len : 0;
    sequence.visibility = (attni_visibility){
        .is_causal = problem->is_causal,
        .window_left = problem->window_left,
        .window_right = problem->window_right,
        .query_offset = batch_option(problem, &problem->query_offset, batch, first_position),
        .key_length = key_length,
        .mask_end = place_mask(problem, &sequence),
    };
    return sequence;
}
