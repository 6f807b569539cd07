/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mask_rows.c: rows of dense masks, in stretches of elements that are evenly apart.
 */
#include "problem/mask_rows.h"

#include "base/checked_size.h"
#include "problem/block_mask.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

attni_interval attni_masked_keys(const attni_sequence *sequence, const attni_mask *mask,
                                 attni_interval keys) {
    return mask->columns == ATTNI_COLUMNS_ARE_PLACED
               ? attni_interval_between(attni_max(keys.begin, sequence->mask_start), keys.end)
               : keys;
}

/* The first element stands for all keys that are further before the row's position, the last for
 * all that are further behind. */
static attni_mask_stretch stretch_of_distances(const attni_mask *mask, int64_t stride,
                                               int64_t position, int64_t key) {
    const int64_t reach = mask->num_columns / 2;
    const int64_t before = attni_saturating_add(position, -key);
    if (before > reach) {
        return (attni_mask_stretch){0, 0, before - reach};
    }
    if (before < -reach) {
        return (attni_mask_stretch){2 * reach * stride, 0, INT64_MAX};
    }
    return (attni_mask_stretch){(reach - before) * stride, stride, reach + before + 1};
}

attni_mask_stretch attni_mask_stretch_from(const attni_mask_row *row, int64_t key) {
    const attni_sdpa_problem *problem = row->problem;
    const attni_mask *mask = &problem->masks[row->mask];
    const int64_t *strides = &mask->strides[problem->batch_rank];
    attni_mask_stretch stretch = {.stride = strides[2], .count = INT64_MAX};
    switch (mask->columns) {
    case ATTNI_COLUMNS_ARE_DISTANCES:
        stretch = stretch_of_distances(
            mask, strides[2], attni_row_position(&row->sequence->visibility, row->row), key);
        break;
    case ATTNI_COLUMNS_ARE_PLACED:
        stretch.offset = (key - row->sequence->mask_start) * strides[2];
        break;
    case ATTNI_COLUMNS_ARE_KEYS:
        stretch.offset = key * strides[2];
        break;
    }
    stretch.offset += attni_head_offset(problem, mask->strides, row->sequence->batch, row->head) +
                      row->row * strides[1];
    return stretch;
}

/* What a row's scores go through. */
typedef struct masked_scores {
    attni_interval keys;
    const attni_row_kernels *kernels;
    char *scores;
    int64_t element; /* bytes of a score */
    double excluded;
} masked_scores;

static void hide(const masked_scores *of, int32_t score_dtype) {
    for (int64_t j = 0; j < of->keys.end - of->keys.begin; ++j) {
        attni_write_real(of->scores, j, score_dtype, of->excluded);
    }
}

/* One mask; without is_added an additive one only excludes. */
static void apply_mask(const attni_mask_row *row, const masked_scores *of, bool is_added) {
    const attni_mask *mask = &row->problem->masks[row->mask];
    attni_interval left = attni_masked_keys(row->sequence, mask, of->keys);
    while (left.begin < left.end) {
        const attni_mask_stretch stretch = attni_mask_stretch_from(row, left.begin);
        const int64_t count = attni_min(stretch.count, left.end - left.begin);
        char *scores = of->scores + (left.begin - of->keys.begin) * of->element;
        (is_added ? attni_mask_apply : attni_mask_exclude)(
            mask, stretch.offset, stretch.stride, of->kernels, scores, count, of->excluded);
        left.begin += count;
    }
}

/* All masks, of keys that are alike for the row. */
static void apply_in_order(attni_mask_row at, const masked_scores *of, bool asks_mask) {
    const attni_mask *masks = at.problem->masks;
    const int32_t left_out = asks_mask ? ATTNI_MAX_MASKS : ATTNI_MASK;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (masks[i].kind == ATTN_MASK_NONE || i == left_out) {
            continue;
        }
        at.mask = i;
        apply_mask(&at, of, true);
        for (int32_t earlier = 0; earlier < i && attni_mask_may_restore(&masks[i]); ++earlier) {
            if (masks[earlier].kind != ATTN_MASK_NONE && earlier != left_out) {
                at.mask = earlier;
                apply_mask(&at, of, false);
            }
        }
    }
}

void attni_apply_masks(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                       int64_t head, int64_t row, attni_interval keys,
                       const attni_row_kernels *kernels, void *scores, double excluded) {
    const attni_mask_row at = {problem, sequence, 0, head, row};
    masked_scores of = {
        .keys = {keys.begin, keys.begin},
        .kernels = kernels,
        .scores = scores,
        .element = (int64_t)attn_dtype_size_bytes(problem->score_dtype),
        .excluded = excluded,
    };
    while (of.keys.end < keys.end) {
        const attni_block_stretch stretch = attni_block_stretch_of(
            problem, sequence->batch, head, row, (attni_interval){of.keys.end, keys.end});
        of.keys = stretch.keys;
        if (stretch.block == ATTN_BLOCK_HIDDEN) {
            hide(&of, problem->score_dtype);
        } else {
            apply_in_order(at, &of, stretch.block == ATTN_BLOCK_MASKED);
        }
        of.scores += (of.keys.end - of.keys.begin) * of.element;
    }
}
