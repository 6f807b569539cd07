/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_plan.h: how the gradients of a call are computed, and in what memory.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_PLAN_H
#define ATTNI_GRADIENTS_GRADIENTS_PLAN_H

#include "base/workspace.h"
#include "context/context.h"
#include "gradients/gradients_problem.h"

enum { ATTNI_GRADIENT_ROWS = 96 }; /* of a tile at most; a multiple of ATTNI_ROWS_AT_ONCE */

/* Depends on shapes, strides, options and the context. No bit of a result follows from the number
 * of slots, though whole_heads may. */
typedef struct attni_gradients_plan {
    int64_t row_block; /* rows and keys that a tile has at most */
    int64_t key_block;
    int64_t tile_stride; /* from one row of a tile to the next */
    int64_t row_blocks;  /* of the longest sequence */
    int64_t key_blocks;  /* likewise */
    int64_t num_pairs;   /* of batches and heads */
    int64_t head_group;  /* heads that share whole heads of key and value */
    bool whole_heads;    /* an item is a group of heads, else a block of keys of one head */
    int64_t num_items;
    int32_t num_slots;
    bool folds[ATTNI_NUM_SUMMED];  /* several heads' sums, in an item */
    bool staged[ATTNI_NUM_SUMMED]; /* summed apart, then written */

    /* Gradients of masks that are summed where they are, beside those three, and whether some of
     * them are of several pairs: each waits for the one before, tile by tile. */
    bool masks_beside[ATTNI_MAX_MASKS];
    bool has_masks_beside;
    bool pairs_wait;

    /* In the call's scratch memory: */
    size_t staged_offset[ATTNI_NUM_SUMMED]; /* (batches, heads, rows, features) */
    size_t means_offset;    /* (batches, heads, rows) of double: what softmax takes off */
    size_t progress_offset; /* (pairs, key blocks) of int64: blocks of rows that are done; nothing
                               where nobody waits */
    size_t slots_offset;
    size_t slot_bytes; /* of each, at the offsets below */

    size_t query_offset; /* rows as consecutive numbers of the score type, where they are not */
    size_t output_offset;
    size_t key_offset;
    size_t value_offset;
    size_t query_strips_offset; /* what products read (product_kernels.h): rows as they are */
    size_t output_strips_offset;
    size_t key_strips_offset;
    size_t key_columns_offset; /* and transposed */
    size_t value_columns_offset;
    size_t weights_offset; /* (row_block, tile_stride): scores, then weights */
    size_t scores_offset;  /* likewise the gradient of the weights, then that of the scores */
    size_t capped_offset;  /* likewise scores after softcap, where there is one */
    size_t kept_offset;    /* likewise of a row: what dropout multiplies it with */
    size_t sums_offset[ATTNI_NUM_SUMMED];   /* of a head: (key_block, features) */
    size_t totals_offset[ATTNI_NUM_SUMMED]; /* likewise of heads that are folded */
    size_t line_offset;                     /* two rows of features */
    size_t table_offset; /* doubles: sums of an option's gradient, by row, key or distance */
} attni_gradients_plan;

attn_status attni_gradients_make_plan(const attn_context *context,
                                      const attni_gradients_problem *problem,
                                      attni_gradients_plan *plan, attni_layout *layout);

#endif
