/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_state.h: the state that the files of the fused engine share. Downwards:
 *   fused_engine.c   items and the steps of a tile
 *   fused_lanes.c, fused_lane_options.c   those steps for rows in lanes (kernels/tile_kernels.h)
 *   fused_rows.c     those steps for a few rows (kernels/stream_kernels.h)
 *   fused_keys.c, fused_values.c   blocks of keys and values; values that not all rows see
 *   fused_panel.c, fused_weights.c, fused_merge.c   where rows and results come from and go to
 */
#ifndef ATTNI_FUSED_FUSED_STATE_H
#define ATTNI_FUSED_FUSED_STATE_H

#include "context/context.h"
#include "fused/fused_plan.h"
#include "kernels/kernel_select.h"
#include "problem/batch_visibility.h"
#include "problem/sdpa_problem.h"
#include "tensor/element.h"

enum { ATTNI_NUM_AHEAD = 3 }; /* keys, values, queries */

typedef struct attni_fused_item attni_fused_item;
typedef struct attni_panel attni_panel;

/* A stretch of a panel's keys, those of one tile. */
typedef struct attni_tile_keys {
    attni_interval keys; /* of the S source keys */
    int64_t count;       /* of them */
    int64_t extra;       /* extra columns behind them: all of them in a panel's last tile, else 0 */
    bool is_last;
} attni_tile_keys;

/* What happens to a tile; one table for rows in lanes, one for a few rows. */
typedef struct attni_tile_steps {
    /* tile = scale * Q K^T; in lanes also the rows' maxima */
    void (*score)(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys);

    /* what options do to scores, in the order sdpa.h gives */
    void (*edit)(const attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys);

    /* scores to weights, relative to the row's maximum for softmax */
    void (*normalize)(const attni_fused_item *item, attni_panel *panel,
                      const attni_tile_keys *keys);

    /* sums += weights * V; if factor is not NULL, which it is in a panel's last tile,
     * output = factor * sums */
    void (*weigh)(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys,
                  const float *factor);

    /* rows[lane][j] = factor[lane] * weight of the tile's key first + j, or is added to it, for j <
     * count */
    void (*store_weights)(const attni_fused_item *item, const attni_panel *panel,
                          float *const *rows, int64_t first, int64_t count, const float *factor,
                          bool is_added);
} attni_tile_steps;

extern const attni_tile_steps attni_steps_in_lanes;
extern const attni_tile_steps attni_steps_by_rows;

/* The call; the same for all items. */
typedef struct attni_fused_engine {
    const attni_sdpa_problem *problem;
    const attni_fused_plan *plan;
    const attni_kernel_set *kernels;
    const attni_tile_steps *steps;
    char *scratch;
} attni_fused_engine;

/* Rows of a group on their way over the keys. Lanes from count on repeat the last row and are not
 * stored. */
struct attni_panel {
    int32_t vectors;
    int32_t width; /* lanes */
    int32_t count;
    bool is_started;       /* sums hold something */
    bool is_finished;      /* output is stored */
    float *queries;        /* times scale: (head_dim, width) in lanes, (count, head_dim) by rows */
    float *sums;           /* (width, sum_stride) */
    attni_interval seen;   /* keys of the item's range that some row sees */
    attni_interval common; /* keys that every row sees */
    int64_t head[ATTNI_PANEL_LANES];
    int64_t row[ATTNI_PANEL_LANES];
    int64_t first_key[ATTNI_PANEL_LANES]; /* the row sees [first_key, past_key) by position and */
    int64_t past_key[ATTNI_PANEL_LANES];  /* length; both ascend, past may be before first */
    attni_panel_state state;
};

/* One item on its way: scratch memory and where it is. */
struct attni_fused_item {
    const attni_fused_engine *engine;
    char *slot;
    int64_t index;
    int64_t batch;
    int64_t group;
    int64_t first_head; /* of the group */
    int64_t split;
    attni_interval range; /* of the keys: those of the split */
    attni_visibility visibility;
    attni_panel *panels;
    int64_t num_panels;
    float *tile;
    float *queries;
    float *sums;
    char *staging;

    /* the keys at hand: [block.begin, block.end), and the extra columns in the last block */
    attni_interval block;
    const float *key; /* of block.begin */
    int64_t key_stride;
    const float *value;
    int64_t value_key_stride;
    int64_t value_chunk_stride;
    attni_ahead ahead[ATTNI_NUM_AHEAD]; /* what is needed next, in this order */
    const float *extra_key;
    const float *extra_value;
    int64_t extra_value_stride; /* between chunks */
};

/* Of the stretches of memory that are needed next, the first that has not all been asked for. */
static inline attni_ahead *attni_fused_ahead(attni_fused_item *item) {
    int32_t i = 0;
    while (i < ATTNI_NUM_AHEAD - 1 && item->ahead[i].num_rows == 0) {
        ++i;
    }
    return &item->ahead[i];
}

static inline const float *attni_floats(char *data, int64_t offset) {
    return (const float *)(const void *)attni_advance(data, offset * (int64_t)sizeof(float));
}

/* The rows of an empty operand are NULL, and stay so. */
static inline const float *attni_floats_at(const float *first, int64_t offset) {
    return first == NULL ? NULL : first + offset;
}

static inline float *attni_floats_to(char *data, int64_t offset) {
    return (float *)(void *)attni_advance(data, offset * (int64_t)sizeof(float));
}

/* Offset of row 0 and column 0 of an operand, or of a scalar option, in elements. */
int64_t attni_fused_offset(const attni_fused_item *item, const int64_t *strides, int64_t head);

enum { ATTNI_NO_KEY = -1 };

/* fused_panel.c */
extern const float attni_fused_ones[ATTNI_PANEL_LANES];

/* Rows of a head of query, key or value from some row on. */
typedef struct attni_source_rows {
    const float *data;
    int64_t row_stride;
    int64_t col_stride;
} attni_source_rows;

/* fused_keys.c: rows of value of the group at hand. */
attni_source_rows attni_fused_values_from(const attni_fused_item *item, int64_t first);

/* fused_values.c: the keys of a tile that all rows of a panel see; then adds to the sums of one row
 * the values of those that it sees besides. `weights` is the lane's for the tile's first key, the
 * others are weight_stride apart. */
attni_interval attni_fused_common_keys(const attni_panel *panel, const attni_tile_keys *keys);
void attni_fused_add_own_values(const attni_fused_item *item, const attni_panel *panel,
                                const attni_tile_keys *keys, int32_t lane, const float *weights,
                                int64_t weight_stride);

/* fused_panel.c: whether a row has seen nothing, by its largest score and the sum of its weights.
 */
bool attni_fused_is_empty(const attni_fused_engine *engine, float max, float sum);

/* fused_panel.c: the part of `count` keys from first_key on that each lane sees, relative to
 * first_key: [begin, end), both ascending; all of them for ATTNI_NO_KEY. */
void attni_fused_bound_rows(const attni_panel *panel, int64_t first_key, int64_t count,
                            int32_t begin[ATTNI_PANEL_LANES], int32_t end[ATTNI_PANEL_LANES]);

/* fused_panel.c: rows of a group that make a block. */
attni_interval attni_fused_block_rows(const attni_fused_engine *engine, int64_t block);

/* fused_panel.c: the panels of block `block` of the group at hand; then their queries. */
void attni_fused_place_panels(attni_fused_item *item, int64_t block);
void attni_fused_pack_queries(attni_fused_item *item);

/* fused_panel.c: what a panel's sums are to be multiplied with now that it has seen everything,
 * into factor; stores lse. */
void attni_fused_finish_panel(const attni_fused_item *item, attni_panel *panel, float *factor);

/* fused_panel.c: stores the panel's output where values did not do it: rows that see nothing are 0,
 * staged rows are copied. */
void attni_fused_store_output(const attni_fused_item *item, const attni_panel *panel);

/* fused_weights.c: sets the averaged weights of a block's rows to 0, before heads add to them. */
void attni_fused_clear_averages(const attni_fused_item *item, int64_t block);

/* fused_weights.c: the weights output's columns of a tile; per head also zeros at positions the
 * panel does not see. In a row of NaN the tile takes the factor, which becomes 1. */
void attni_fused_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               const attni_tile_keys *keys, float *factor);

/* fused_merge.c: what a panel has gathered over its split of the keys, put aside. */
void attni_fused_put_aside(const attni_fused_item *item, const attni_panel *panel);

/* fused_merge.c: an attni_slot_task: gathers what the splits of one block have put aside, and
 * finishes its rows. */
void attni_fused_merge_item(void *engine, int32_t slot, int64_t index);

/* fused_keys.c: makes `block` the keys at hand; then asks for what is needed next: the keys `next`,
 * or those of another item if there are none. */
void attni_fused_take_block(attni_fused_item *item, attni_interval block);
void attni_fused_look_ahead(attni_fused_item *item, attni_interval next);

/* fused_engine.c: an item in a slot's scratch memory, nowhere yet; then at a batch, a group and a
 * split; at those of item `index`, whose block it returns. */
attni_fused_item attni_fused_item_in(const attni_fused_engine *engine, int32_t slot);
void attni_fused_go_to(attni_fused_item *item, int64_t batch, int64_t group, int64_t split);
int64_t attni_fused_go_to_item(attni_fused_item *item, int64_t index);

/* fused_lane_options.c */
void attni_lanes_edit(const attni_fused_item *item, attni_panel *panel,
                      const attni_tile_keys *keys);

#endif
