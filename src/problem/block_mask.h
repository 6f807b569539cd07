/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_mask.h: what a mask by blocks shows. An engine asks for the stretches of keys that some of
 * its rows see, or that one row sees alike, and learns nothing of blocks.
 *
 * Another thread may write the mask meanwhile: then answers that belong together may differ, and
 * the numbers are wrong; each is within the keys that were asked about. A call without such a mask
 * sees all.
 */
#ifndef ATTNI_PROBLEM_BLOCK_MASK_H
#define ATTNI_PROBLEM_BLOCK_MASK_H

#include "problem/batch_sequence.h"

static inline bool attni_has_blocks(const attni_sdpa_problem *problem) {
    return problem->blocks.block_columns > 0;
}

/* What the block of a row and a key is: enum attn_block. */
int32_t attni_block_at(const attni_sdpa_problem *problem, int64_t batch, int64_t head, int64_t row,
                       int64_t key);

/* The first key behind the column of blocks that `key` is in. */
static inline int64_t attni_past_block(const attni_sdpa_problem *problem, int64_t key) {
    const int64_t columns = problem->blocks.block_columns;
    return attni_saturating_add(key - key % columns, columns);
}

/* Keys that follow one another and are alike for a row. */
typedef struct attni_block_stretch {
    attni_interval keys;
    int32_t block; /* enum attn_block */
} attni_block_stretch;

/* The first of `keys`, of which there are some, as far as they are alike. */
attni_block_stretch attni_block_stretch_of(const attni_sdpa_problem *problem, int64_t batch,
                                           int64_t head, int64_t row, attni_interval keys);

/* Rows [rows.begin, rows.end), some, of heads [heads.begin, heads.end). */
typedef struct attni_block_rows {
    const attni_sdpa_problem *problem;
    int64_t batch;
    attni_interval heads;
    attni_interval rows;
} attni_block_rows;

/* The first of `keys` that some of these rows see, as far as they follow one another; {keys.end,
 * keys.end} if there are none. */
attni_interval attni_first_shown(const attni_block_rows *rows, attni_interval keys);

/* What is behind the last of `keys` that some of these rows see, or keys.begin. */
int64_t attni_past_shown(const attni_block_rows *rows, attni_interval keys);

/* Whether each of these rows sees all of `keys`. */
bool attni_all_are_shown(const attni_block_rows *rows, attni_interval keys);

#endif
