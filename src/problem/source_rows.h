/* SPDX-License-Identifier: BSD-3-Clause
 *
 * source_rows.h: where rows lie. An engine asks for the rows of a batch and head, and learns
 * nothing of axes that repeat, are missing or are shared by a group of heads, nor of sequences that
 * share a tensor or lie in pages.
 */
#ifndef ATTNI_PROBLEM_SOURCE_ROWS_H
#define ATTNI_PROBLEM_SOURCE_ROWS_H

#include "problem/batch_sequence.h"
#include "problem/sdpa_problem.h"
#include "tensor/element.h"

/* Rows of an operand in one batch and head: element (r, c) at data + (r * row_stride + c *
 * col_stride) * the operand's element_bytes, for r < count. Those of an empty operand are NULL. */
typedef struct attni_source_rows {
    void *data;
    int64_t row_stride;
    int64_t col_stride;
    int64_t count; /* INT64_MAX where nothing lies in pages: as many as there are */
} attni_source_rows;

/* Offset of row 0 and column 0, in elements, by strides on the canonical axes. */
static inline int64_t attni_head_offset(const attni_sdpa_problem *problem, const int64_t *strides,
                                        int64_t batch, int64_t head) {
    return attni_offset_of(batch, problem->batch_rank, problem->batch_shape, strides) +
           head * strides[problem->batch_rank];
}

/* Rows of query, key, value, output or weights from row `first` on; `head` is the operand's own. */
static inline attni_source_rows attni_operand_rows(const attni_sdpa_problem *problem,
                                                   const attni_operand *operand, int64_t batch,
                                                   int64_t head, int64_t first) {
    const int64_t *strides = &operand->strides[problem->batch_rank + 1];
    const int64_t offset =
        attni_head_offset(problem, operand->strides, batch, head) + first * strides[0];
    return (attni_source_rows){attni_advance(operand->data, offset * operand->element_bytes),
                               strides[0], strides[1], INT64_MAX};
}

/* Rows of key or value, whose pages are page_stride elements apart; `head` is the operand's own. */
static inline attni_source_rows attni_sequence_rows(const attni_sdpa_problem *problem,
                                                    const attni_operand *operand,
                                                    int64_t page_stride,
                                                    const attni_sequence *sequence, int64_t head,
                                                    int64_t first) {
    const attni_pages *pages = &problem->pages;
    if (pages->rows == 0) {
        return attni_operand_rows(problem, operand, sequence->batch, head,
                                  sequence->first_row + first);
    }
    const int64_t page = attni_page_of(problem, sequence, first / pages->rows);
    const int64_t row = first % pages->rows;
    attni_source_rows rows = attni_operand_rows(problem, operand, 0, head, row);
    rows.data = attni_advance(rows.data, page * page_stride * operand->element_bytes);
    rows.count = pages->rows - row;
    return rows;
}

/* Rows of key for query head `head`, from key `first` on. */
static inline attni_source_rows attni_source_keys(const attni_sdpa_problem *problem,
                                                  const attni_sequence *sequence, int64_t head,
                                                  int64_t first) {
    return attni_sequence_rows(problem, &problem->key, problem->pages.key_stride, sequence,
                               head / problem->key_group, first);
}

static inline attni_source_rows attni_source_values(const attni_sdpa_problem *problem,
                                                    const attni_sequence *sequence, int64_t head,
                                                    int64_t first) {
    return attni_sequence_rows(problem, &problem->value, problem->pages.value_stride, sequence,
                               head / problem->value_group, first);
}

/* Rows of the extra columns. */
static inline attni_source_rows attni_extra_keys(const attni_sdpa_problem *problem, int64_t batch,
                                                 int64_t head) {
    return attni_operand_rows(problem, &problem->extra_key, batch, head / problem->key_group, 0);
}

static inline attni_source_rows attni_extra_values(const attni_sdpa_problem *problem, int64_t batch,
                                                   int64_t head) {
    return attni_operand_rows(problem, &problem->extra_value, batch, head / problem->value_group,
                              0);
}

#endif
