/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mask.h: dense masks in the one form every engine understands.
 *
 * What the three kinds mean for a score s at (i, j), as an executable specification; `excluded` is
 * what the normaliser turns into weight 0:
 *
 *     ADDITIVE      s = mask[i, j] == -inf ? excluded : s + mask[i, j]; where both are finite, the
 *                   largest number of its sign if the sum is not
 *     BOOL_INCLUDE  s = mask[i, j] ? s : excluded
 *     BOOL_EXCLUDE  s = mask[i, j] ? excluded : s
 *
 * Kinds and polarity are resolved in mask.c and nowhere else.
 */
#ifndef ATTNI_SOFTMAX_MASK_H
#define ATTNI_SOFTMAX_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernel_select.h"
#include "tensor/tensor_check.h"

/* What the columns of a mask stand for. */
typedef enum attni_mask_columns {
    ATTNI_COLUMNS_ARE_KEYS,      /* column j for key j */
    ATTNI_COLUMNS_ARE_PLACED,    /* column 0 for a key of each sequence; there are num_columns */
    ATTNI_COLUMNS_ARE_DISTANCES, /* of 2 R + 1 column R + d for the keys d behind a row's position,
                                    the outer ones for all beyond */
} attni_mask_columns;

typedef struct attni_mask {
    const char *data;
    int64_t strides[ATTN_MAX_RANK]; /* over the axes it was broadcast to, 0 where it repeats */
    int32_t kind;                   /* enum attn_mask_kind; ATTN_MASK_NONE: there is no mask */
    int32_t dtype;
    attni_mask_columns columns;
    int64_t num_columns; /* but for ATTNI_COLUMNS_ARE_KEYS */
} attni_mask;

/* Checks mask and kind together and fills *canonical. `mask` may be NULL. Messages name `name`, and
 * `name` with "_kind" behind it. */
attn_status attni_mask_check(const char *name, const attn_tensor *mask, int32_t kind,
                             int32_t score_dtype, const attni_axis *axes, int32_t axis_count,
                             attni_data_rule data_rule, attni_mask *canonical);

/* Kind and dtype alone, for callers that resolve the shape themselves. */
attn_status attni_mask_check_kind(const char *name, const attn_tensor *mask, int32_t kind,
                                  int32_t score_dtype);

/* Applies n mask elements, from element offset `offset` on, `stride` elements apart, to a row of
 * scores. */
void attni_mask_apply(const attni_mask *mask, int64_t offset, int64_t stride,
                      const attni_row_kernels *kernels, void *row, int64_t n, double excluded);

/* The same, but only for what the mask excludes: nothing is added. */
void attni_mask_exclude(const attni_mask *mask, int64_t offset, int64_t stride,
                        const attni_row_kernels *kernels, void *row, int64_t n, double excluded);

/* Whether a mask could bring back what an earlier one excluded, which then has to exclude again. */
bool attni_mask_may_restore(const attni_mask *mask);

/* A tile of scores (see kernels/tile_kernels.h) that a mask is applied to. Without is_added an
 * additive mask only excludes. */
typedef struct attni_mask_tile {
    const attni_lane_kernels *kernels;
    float *scores;
    int32_t vectors;
    int32_t width; /* lanes */
    int64_t num_keys;
    bool is_added;
    float excluded;
} attni_mask_tile;

/* Applies a mask to a tile: rows[lane] is the mask's element for the first key, those of the others
 * follow it without gaps; additive ones are float32 there. */
void attni_mask_apply_rows(const attni_mask *mask, const char *const *rows,
                           const attni_mask_tile *tile);

/* The same for a mask that all rows share: its elements begin at `first`, `stride` apart. */
void attni_mask_apply_keys(const attni_mask *mask, const char *first, int64_t stride,
                           const attni_mask_tile *tile);

/* Whether the mask is additive and narrower than float32. */
bool attni_mask_is_narrow(const attni_mask *mask);
/* What rows of the mask do to num_keys keys: rows[r] is the mask's element for the first key, those
 * of the others follow it without gaps; additive ones are float32 there. */
attni_mask_sight attni_mask_look(const attni_mask *mask, const attni_mask_kernels *kernels,
                                 const char *const *rows, int32_t num_rows, int64_t num_keys);

/* The first of num_keys keys that a row of the mask shows, num_keys if there is none; and what is
 * past the last of them, or 0. Elements begin at `row`, `stride` apart. */
int64_t attni_mask_first_shown(const attni_mask *mask, const attni_kernel_set *kernels,
                               const char *row, int64_t stride, int64_t num_keys);
int64_t attni_mask_past_shown(const attni_mask *mask, const attni_kernel_set *kernels,
                              const char *row, int64_t stride, int64_t num_keys);

/* Whether an element shows its position and changes the score there. */
bool attni_mask_shifts(const attni_mask *mask, const char *element);

/* Whether the mask element at an offset excludes its position by itself. */
bool attni_mask_excludes(const attni_mask *mask, int64_t offset);

#endif
