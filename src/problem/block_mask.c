/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_mask.c: what a mask by blocks shows, column of blocks by column of blocks.
 */
#include "problem/block_mask.h"

#include "problem/source_rows.h"

/* Rows behind those that a mask has blocks for are there only if another thread wrote
 * query_starts. */
static int64_t row_offset(const attni_sdpa_problem *problem, int64_t row) {
    const attni_block_mask *blocks = &problem->blocks;
    return attni_min(row / blocks->block_rows, blocks->num_rows - 1) *
           blocks->strides[problem->batch_rank + 1];
}

static int64_t column_offset(const attni_sdpa_problem *problem, int64_t key) {
    return key / problem->blocks.block_columns * problem->blocks.strides[problem->batch_rank + 2];
}

int32_t attni_block_at(const attni_sdpa_problem *problem, int64_t batch, int64_t head, int64_t row,
                       int64_t key) {
    const int64_t offset = attni_head_offset(problem, problem->blocks.strides, batch, head) +
                           row_offset(problem, row) + column_offset(problem, key);
    return (int32_t)attni_min(problem->blocks.data[offset], ATTN_BLOCK_MASKED);
}

attni_block_stretch attni_block_stretch_of(const attni_sdpa_problem *problem, int64_t batch,
                                           int64_t head, int64_t row, attni_interval keys) {
    attni_block_stretch stretch = {keys, ATTN_BLOCK_MASKED};
    if (!attni_has_blocks(problem)) {
        return stretch;
    }
    stretch.block = attni_block_at(problem, batch, head, row, keys.begin);
    int64_t past = attni_past_block(problem, keys.begin);
    while (past < keys.end && attni_block_at(problem, batch, head, row, past) == stretch.block) {
        past = attni_past_block(problem, past);
    }
    stretch.keys.end = attni_min(past, keys.end);
    return stretch;
}

/* Whether some of the rows, or all of them, see the keys of a column of blocks. */
static bool is_column_shown(const attni_block_rows *of, int64_t key, bool to_all) {
    const attni_sdpa_problem *problem = of->problem;
    const int64_t *strides = &problem->blocks.strides[problem->batch_rank];
    const int64_t past_head =
        strides[0] == 0 ? attni_min(of->heads.begin + 1, of->heads.end) : of->heads.end;
    const int64_t past_row = strides[1] == 0 ? of->rows.begin + 1 : of->rows.end;
    const int64_t block_rows = problem->blocks.block_rows;
    for (int64_t head = of->heads.begin; head < past_head; ++head) {
        for (int64_t row = of->rows.begin; row < past_row;
             row = attni_saturating_add(row - row % block_rows, block_rows)) {
            const bool is_shown =
                attni_block_at(problem, of->batch, head, row, key) != ATTN_BLOCK_HIDDEN;
            if (is_shown != to_all) {
                return is_shown;
            }
        }
    }
    return to_all;
}

attni_interval attni_first_shown(const attni_block_rows *rows, attni_interval keys) {
    int64_t begin = keys.begin;
    if (!attni_has_blocks(rows->problem)) {
        return keys;
    }
    while (begin < keys.end && !is_column_shown(rows, begin, false)) {
        begin = attni_past_block(rows->problem, begin);
    }
    if (begin >= keys.end) {
        return (attni_interval){keys.end, keys.end};
    }
    int64_t end = attni_past_block(rows->problem, begin);
    while (end < keys.end && is_column_shown(rows, end, false)) {
        end = attni_past_block(rows->problem, end);
    }
    return (attni_interval){begin, attni_min(end, keys.end)};
}

int64_t attni_past_shown(const attni_block_rows *rows, attni_interval keys) {
    int64_t end = keys.end;
    while (attni_has_blocks(rows->problem) && end > keys.begin &&
           !is_column_shown(rows, end - 1, false)) {
        end -= (end - 1) % rows->problem->blocks.block_columns + 1;
    }
    return attni_max(end, keys.begin);
}

bool attni_all_are_shown(const attni_block_rows *rows, attni_interval keys) {
    bool are_shown = true;
    if (!attni_has_blocks(rows->problem)) {
        return true;
    }
    for (int64_t key = keys.begin; key < keys.end && are_shown;
         key = attni_past_block(rows->problem, key)) {
        are_shown = is_column_shown(rows, key, true);
    }
    return are_shown;
}
