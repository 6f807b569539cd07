/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_plan.h: how the fused engine cuts a call into items, and what an item's scratch memory is.
 *
 * Query heads that use the same key and value head form a group; row r of a group is query row
 * r / group of its head r % group, so rows that lie side by side in a panel stand at neighbouring
 * positions. A group's rows are cut into blocks, a block into panels; an item is a block of one
 * group (of all groups where weights are averaged over heads, because they add to the same rows),
 * over all keys or, where there would be few items, over a split of them.
 */
#ifndef ATTNI_FUSED_FUSED_PLAN_H
#define ATTNI_FUSED_FUSED_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/workspace.h"
#include "context/context.h"
#include "problem/sdpa_problem.h"

typedef struct attni_fused_plan {
    int64_t group;       /* heads */
    int64_t num_groups;  /* of a batch */
    int64_t rows;        /* of a group: group * L */
    int64_t num_vectors; /* its rows in lanes */
    int64_t num_blocks;  /* of a group */
    int64_t max_panels;  /* of a block */
    int64_t key_block;   /* keys of a tile at most, without the extra columns */
    int64_t num_splits;  /* of the keys: each is an item of its own, merged at the end */
    int64_t split_keys;  /* of a split; the last may have fewer */
    int64_t num_items;
    int64_t num_merges;     /* blocks to be merged; 0 without splits */
    int32_t num_slots;      /* pieces of scratch memory */
    int32_t packs;          /* ATTNI_PACKS_QUERY and so on */
    int64_t row_block;      /* rows of the largest block */
    bool by_rows;           /* too few rows for lanes: see kernels/stream_kernels.h */
    bool averages;          /* an item covers all groups */
    bool looks_ahead;       /* items are long enough to ask for the next one's keys and values */
    bool packs_key;         /* columns of key are not side by side */
    bool packs_value;       /* also: not whole vectors, or enough panels share the copy */
    bool stages_output;     /* also: a few rows, or splits */
    bool stages_weights;    /* columns of weights are not side by side */
    bool stages_masks;      /* columns of some mask are not side by side */
    int64_t sum_stride;     /* value_dim in whole chunks */
    size_t partials_offset; /* in the call's scratch memory: what splits put aside, for each (batch
                               and group, split, row) a max, a sum and sum_stride sums */
    size_t slots_offset;    /* likewise: scratch memory of the slots */
    size_t slot_bytes;      /* of which the offsets below are */
    size_t panels_offset;   /* attni_panel[max_panels] */
    size_t queries_offset;  /* the panels' queries */
    size_t sums_offset;     /* the panels' sums, (lanes, sum_stride) each */
    size_t tile_offset;     /* scores, then weights, of one panel */
    size_t key_offset;      /* packed: (key_block + extra, head_dim) */
    size_t value_offset;    /* packed: (chunks, key_block + extra, value_columns) */
    size_t staging_offset;  /* rows of masks or weights, (lanes, key_block) */
} attni_fused_plan;

/* Fills an empty plan and adds its scratch memory to a layout. */
attn_status attni_fused_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                  attni_fused_plan *plan, attni_layout *layout);

#endif
