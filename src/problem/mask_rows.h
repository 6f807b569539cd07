/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mask_rows.h: where a row of a dense mask lies. An engine asks for the elements of a row's keys,
 * and learns nothing of masks that begin at some key or whose columns are distances.
 */
#ifndef ATTNI_PROBLEM_MASK_ROWS_H
#define ATTNI_PROBLEM_MASK_ROWS_H

#include "problem/batch_sequence.h"

/* A row of a mask of the problem, by its number among masks. */
typedef struct attni_mask_row {
    const attni_sdpa_problem *problem;
    const attni_sequence *sequence;
    int32_t mask;
    int64_t head;
    int64_t row;
} attni_mask_row;

/* Elements of keys that follow one another: the first `offset` elements behind the mask's data,
 * each `stride` behind the one before. */
typedef struct attni_mask_stretch {
    int64_t offset;
    int64_t stride;
    int64_t count; /* of keys, of which there may be fewer */
} attni_mask_stretch;

/* Those of `keys` that the mask has elements for, which are their last ones. Keys behind the mask's
 * end are none that a row sees. */
attni_interval attni_masked_keys(const attni_sequence *sequence, const attni_mask *mask,
                                 attni_interval keys);

/* The elements from key `key` on, which the mask has one for. */
attni_mask_stretch attni_mask_stretch_from(const attni_mask_row *row, int64_t key);

/* Applies all masks of the problem, in order, to the scores of those keys of a row, the one by
 * blocks first. A later additive mask does not bring back what an earlier one excluded. */
void attni_apply_masks(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                       int64_t head, int64_t row, attni_interval keys,
                       const attni_row_kernels *kernels, void *scores, double excluded);

#endif
