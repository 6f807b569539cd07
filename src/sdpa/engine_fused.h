/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_fused.h: the state that the files of the fused engine share: items and tiles
 * (engine_fused.c), panels (fused_panel.c), what options do to scores (fused_scores.c).
 */
#ifndef ATTNI_SDPA_ENGINE_FUSED_H
#define ATTNI_SDPA_ENGINE_FUSED_H

#include "kernels/lane_kernels.h"
#include "kernels/tile_kernels.h"
#include "sdpa/sdpa_problem.h"

/* The call; the same for all items. */
typedef struct attni_fused_engine {
    const attni_sdpa_problem *problem;
    const attni_fused_plan *plan;
    const attni_row_kernels *rows;
    const attni_tile_kernels *tiles;
    const attni_lane_kernels *lanes;
    char *scratch;
} attni_fused_engine;

/* A few rows of a group, in lanes, on their way over the keys. Lanes from count on repeat the last
 * row and are not stored. */
typedef struct attni_panel {
    int32_t vectors;
    int32_t width; /* lanes */
    int32_t count;
    bool is_started;  /* sums hold something */
    bool is_finished; /* output is stored */
    float *queries;  /* (head_dim, width), times scale */
    float *sums;     /* (width, sum_stride) */
    attni_interval seen;   /* keys that some row sees */
    attni_interval common; /* keys that every row sees */
    int64_t head[ATTNI_PANEL_LANES];
    int64_t row[ATTNI_PANEL_LANES];
    int64_t first_key[ATTNI_PANEL_LANES]; /* the row sees [first_key, past_key) by position and */
    int64_t past_key[ATTNI_PANEL_LANES];  /* length; both ascend, past may be before first */
    attni_panel_state state;
} attni_panel;

/* One item on its way: scratch memory and where it is. */
typedef struct attni_fused_item {
    const attni_fused_engine *engine;
    int64_t batch;
    int64_t first_head; /* of the group */
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
    attni_ahead ahead[2]; /* key and value of the block after it */
    const float *extra_key;
    const float *extra_value;
    int64_t extra_value_stride; /* between chunks */
} attni_fused_item;

/* A stretch of a panel's keys, those of one tile. */
typedef struct attni_tile_keys {
    attni_interval keys; /* of the S source keys */
    int64_t count;       /* of them */
    int64_t extra;       /* extra columns behind them: all of them in a panel's last tile, else 0 */
    bool is_last;
} attni_tile_keys;

/* Of the stretches of memory that are needed next, the first that has not all been asked for. */
static inline attni_ahead *attni_fused_ahead(attni_fused_item *item) {
    return &item->ahead[item->ahead[0].num_rows > 0 ? 0 : 1];
}

static inline const float *attni_floats(const char *data, int64_t offset) {
    return (const float *)(const void *)(data + offset * (int64_t)sizeof(float));
}

static inline float *attni_floats_to(char *data, int64_t offset) {
    return (float *)(void *)(data + offset * (int64_t)sizeof(float));
}

/* Offset of row 0 and column 0 of an operand, or of a scalar option, in elements. */
int64_t attni_fused_offset(const attni_fused_item *item, const int64_t *strides, int64_t head);

enum { ATTNI_NO_KEY = -1 };

/* fused_panel.c: the part of `count` keys from first_key on that each lane sees, relative to
 * first_key: [begin, end), both ascending; all of them for ATTNI_NO_KEY. */
void attni_fused_bound_rows(const attni_panel *panel, int64_t first_key, int64_t count,
                            int32_t begin[ATTNI_PANEL_LANES], int32_t end[ATTNI_PANEL_LANES]);

/* fused_panel.c: the panels of block `block` of the group at hand, their queries packed. */
void attni_fused_start_panels(attni_fused_item *item, int64_t block);

/* fused_panel.c: what a panel's sums are to be multiplied with now that it has seen everything, into
 * factor; stores lse. */
void attni_fused_finish_panel(const attni_fused_item *item, attni_panel *panel, float *factor);

/* fused_panel.c: stores the panel's output where values did not do it: rows that see nothing are 0,
 * staged rows are copied. */
void attni_fused_store_output(const attni_fused_item *item, const attni_panel *panel);

/* fused_panel.c: sets the averaged weights of a block's rows to 0, before heads add to them. */
void attni_fused_clear_averages(const attni_fused_item *item, int64_t block);

/* fused_panel.c: the weights output's columns of a tile; per head also zeros at positions the panel
 * does not see. */
void attni_fused_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               const attni_tile_keys *keys, const float *factor);

/* fused_scores.c: what options do to a tile of products: softcap, ALiBi, masks, intervals; then the
 * rows' maxima. */
void attni_fused_edit_scores(const attni_fused_item *item, attni_panel *panel,
                             const attni_tile_keys *keys);

#endif
