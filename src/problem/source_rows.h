/* SPDX-License-Identifier: BSD-3-Clause
 *
 * source_rows.h: where rows lie. An engine asks for the rows of a batch and head, and learns
 * nothing of axes that repeat, are missing or are shared by a group of heads.
 */
#ifndef ATTNI_PROBLEM_SOURCE_ROWS_H
#define ATTNI_PROBLEM_SOURCE_ROWS_H

#include "problem/sdpa_problem.h"
#include "tensor/element.h"

/* Rows of an operand in one batch and head: element (r, c) at data + (r * row_stride + c *
 * col_stride) * the operand's element_bytes. Those of an empty operand are NULL. */
typedef struct attni_source_rows {
    void *data;
    int64_t row_stride;
    int64_t col_stride;
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
                               strides[0], strides[1]};
}

/* Rows of key for query head `head`, from key `first` on; the extra columns' follow key S - 1. */
static inline attni_source_rows attni_source_keys(const attni_sdpa_problem *problem, int64_t batch,
                                                  int64_t head, int64_t first) {
    return attni_operand_rows(problem, &problem->key, batch, head / problem->key_group, first);
}

static inline attni_source_rows attni_source_values(const attni_sdpa_problem *problem,
                                                    int64_t batch, int64_t head, int64_t first) {
    return attni_operand_rows(problem, &problem->value, batch, head / problem->value_group, first);
}

#endif
