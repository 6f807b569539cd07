/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_state.h: the state that the files of the fused engine share, as data and nothing else.
 * Downwards:
 *   fused_runs                              items of all runs of ragged queries
 *   fused_engine                            items and the steps of a tile
 *   fused_merge, fused_weights              where results go
 *   fused_rows                              the steps for a few rows (kernels/stream_kernels.h)
 *   fused_pairs                             those of pairs of bfloat16 (kernels/pair_kernels.h)
 *   fused_lanes, fused_lane_options         the steps for rows in lanes (kernels/tile_kernels.h)
 *   fused_values, fused_keys, fused_panel   blocks of values and keys, panels of rows
 *   fused_sights, fused_masks               what dense masks show of a tile, and where they lie
 *   fused_parts                             what a block mask leaves of it
 *   fused_item, fused_plan                  where an item is and what it may use
 */
#ifndef ATTNI_FUSED_FUSED_STATE_H
#define ATTNI_FUSED_FUSED_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernel_select.h"
#include "problem/batch_sequence.h"
#include "problem/sdpa_problem.h"

/* How a call is cut into items, and what an item's scratch memory is.
 *
 * Query heads that use the same key and value head form a group; row r of a group is query row
 * r / group of its head r % group, so rows that lie side by side in a panel stand at neighbouring
 * positions. A group's rows are cut into blocks, a block into panels; an item is a block of one
 * group (of all groups where weights are averaged over heads, because they add to the same rows),
 * over all keys or, where there would be few items, over a split of them. */
typedef struct attni_fused_plan {
    int64_t group;       /* heads */
    int64_t num_groups;  /* of a batch */
    int64_t rows;        /* of a group: group * L */
    int64_t num_vectors; /* its rows in lanes */
    int64_t num_blocks;  /* of a group */
    int64_t max_panels;  /* of a block */
    int64_t key_block;   /* keys of a tile: tiles begin at its multiples, counted from key 0 */
    int64_t tile_keys;   /* keys of a tile at most, where there are fewer than key_block */
    int64_t chunk_keys;  /* a multiple of key_block: keys that are summed from a fresh maximum */
    int64_t num_chunks;  /* of all keys */
    bool spreads;        /* each chunk is an item of its own, folded at the end */
    bool folds;          /* panels fold chunks, or extra columns, themselves */
    int64_t num_items;
    double work;        /* multiply-adds that take as long as all items */
    int64_t num_merges; /* blocks whose chunks are folded at the end; 0 if none are spread */
    int32_t num_slots;  /* pieces of scratch memory */
    int32_t packs;      /* ATTNI_PACKS_QUERY and so on */
    int64_t row_block;  /* rows of the largest block */
    bool by_rows;       /* too few rows for lanes: see kernels/stream_kernels.h */
    bool by_pairs;      /* rows in lanes, of pairs of bfloat16: see kernels/pair_kernels.h */
    bool averages;      /* an item covers all groups */
    bool looks_ahead;   /* items are long enough to ask for the next one's keys and values */
    bool packs_key;     /* columns of key are not side by side, or not as the lanes' kernels
                               read them */
    bool packs_value;   /* also: not whole vectors, or enough panels share the copy */
    int64_t key_stride; /* of packed keys: head_dim, or the next even number in pairs */
    int64_t key_bytes;  /* of an element that kernels read: float32, or as stored */
    int64_t value_bytes;
    bool folds_key_scales;   /* by rows: integers are read as stored, and scores get the scales */
    bool folds_value_scales; /* likewise, and weights do */
    bool dequantizes_values; /* into memory of their own, before they are packed for lanes */
    bool stages_output;      /* also: a few rows, or spread chunks */
    bool stages_weights;     /* columns of weights are not side by side */
    bool sums_averages;      /* averaged weights are narrower than float32: they are summed apart */
    bool has_masks;
    bool looks_at_masks;    /* before a tile is computed, to compute less of it */
    bool keeps_sights;      /* of masks, for the next item, which may have the same */
    bool asks_for_masks;    /* before they are looked at */
    bool stages_masks;      /* columns of some mask are not side by side, or of 16 bits */
    int64_t sum_stride;     /* value_dim in whole chunks */
    size_t partials_offset; /* in the call's scratch memory: what spread chunks put aside, for each
                               (batch and group, chunk, row) a max, a sum and sum_stride sums;
                               behind the chunks are the extra columns */
    size_t partials_bytes;
    size_t slots_offset;    /* likewise: scratch memory of the slots */
    size_t slot_bytes;      /* of which the offsets below are */
    size_t panels_offset;   /* attni_panel[max_panels] */
    size_t queries_offset;  /* the panels' queries */
    size_t sums_offset;     /* the panels' sums, (lanes, sum_stride) each */
    size_t folded_offset;   /* likewise those of the chunks that are folded already */
    size_t tile_offset;     /* scores, then weights, of one panel */
    size_t pairs_offset;    /* the weights of a tile in pairs of keys */
    size_t key_offset;      /* packed: (key_block, head_dim) */
    size_t value_offset;    /* packed: (chunks, key_block + extra, value_columns) */
    bool lists_rows;        /* by rows, of pages: where each row of a block is */
    size_t lists_offset;    /* const void *[2][tile_keys + ATTNI_STREAM_AHEAD] */
    size_t gathered_offset; /* (key_block, value_dim): by pairs, of pages, values as stored; or
                               dequantised ones */
    size_t staging_offset;  /* rows of masks or weights, (lanes, key_block) */
    size_t averages_offset; /* sums of the weights of a block's rows, (rows, S + extra) */
    size_t kept_key_offset; /* attni_sights_key */
    size_t kept_offset;     /* attni_tile_sight[max_panels][num_tiles] of it */
    int64_t num_tiles;      /* of all keys */
    int64_t max_parts;      /* of a tile: 1, or what a block mask may leave apart */
    size_t parts_offset;    /* attni_tile_keys[max_parts] */
    size_t shown_offset;    /* attni_interval[max_parts] */
    int64_t panel_rows;     /* of a group: a panel ends at their multiples, which a vector divides,
                               so that its rows are of one row of blocks; 0: it may end anywhere */
    size_t kept_scores_offset; /* of a tile, of rows that a mask is not asked about */
} attni_fused_plan;

enum { ATTNI_NUM_AHEAD = 3 }; /* keys, values, queries */

typedef struct attni_fused_item attni_fused_item;
typedef struct attni_panel attni_panel;

/* Keys of a tile that follow one another, and where the tile has them. */
typedef struct attni_tile_keys {
    attni_interval keys; /* of the S source keys */
    int64_t count;       /* of them */
    int64_t extra;       /* extra columns behind them: all of them behind a panel's last, else 0 */
    int64_t first;       /* key of the tile */
    int64_t number;      /* parts of the tile before this one */
    bool are_shown;      /* by the block mask, to every row */
    const attni_interval *changed; /* of the keys, those whose scores a mask may change, for each
                                      mask; NULL without masks */
} attni_tile_keys;

/* What a panel sees of the keys at hand: one part, or as many as the block mask leaves, side by
 * side in the tile without what it hides between them. */
typedef struct attni_panel_tile {
    const attni_tile_keys *parts;
    int64_t num_parts; /* 1 or more, one of which may be empty */
    int64_t count;     /* keys of all parts */
    int64_t extra;     /* of the last part */
    bool is_last;
} attni_panel_tile;

/* What a panel sees of a tile through the masks. */
typedef struct attni_tile_sight {
    int64_t number;      /* of the tile, counted from key 0; -1: none yet */
    attni_interval keys; /* that some row sees, outer bounds */
    attni_interval
        changed[ATTNI_MAX_MASKS]; /* of these, outside of which a mask changes no score */
} attni_tile_sight;

/* What sights are of. They are kept in a slot as long as its items have the same rows of the same
 * masks and see the same by position: heads that share a mask. */
typedef struct attni_sights_key {
    bool is_valid;
    int64_t block; /* of rows */
    int64_t split;
    attni_visibility visibility;
    int64_t masks[ATTNI_MAX_MASKS]; /* offsets of their rows */
} attni_sights_key;

/* What happens to a tile, part by part; one table for rows in lanes, one for pairs, one for a few
 * rows. */
typedef struct attni_tile_steps {
    /* tile = scale * Q K^T; in lanes also the rows' maxima */
    void (*score)(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys);

    /* what options do to scores, in the order sdpa.h gives */
    void (*edit)(const attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys);

    /* scores to weights, relative to the row's maximum for softmax */
    void (*normalize)(const attni_fused_item *item, attni_panel *panel,
                      const attni_panel_tile *tile);

    /* sums += weights * V, once `rescale` of the state is done; if factor is not NULL, which it is
     * in the last part of a panel's last tile, output = factor * sums */
    void (*weigh)(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys,
                  const float *factor);

    /* rows[lane][j] = factor[lane] * weight of the tile's key first + j, or is added to it, for j <
     * count */
    void (*store_weights)(const attni_fused_item *item, const attni_panel *panel,
                          float *const *rows, int64_t first, int64_t count, const float *factor,
                          bool is_added);
} attni_tile_steps;

/* The call; the same for all items. */
typedef struct attni_fused_engine {
    const attni_sdpa_problem *problem;
    const attni_fused_plan *plan;
    const attni_kernel_set *kernels;
    const attni_tile_steps *steps;
    const attni_pair_kernels *pairs; /* by_pairs */
    const attni_storage_kernels *query_storage;
    const attni_storage_kernels *key_storage;
    const attni_storage_kernels *value_storage;
    const attni_storage_kernels *output_storage;
    const attni_storage_kernels *weights_storage;
    const attni_stream_kernels *key_streams;
    const attni_stream_kernels *value_streams;
    const attni_storage_kernels *float32_storage; /* of the extra columns */
    const attni_stream_kernels *float32_streams;
    char *scratch;
    attni_interval chunks; /* those in which some row sees a key: no others are visited */
    int64_t num_splits;    /* items into which they are spread: one for each, or 1 for all */
    int64_t num_items;
} attni_fused_engine;

/* Rows of a group on their way over the keys. Lanes from count on repeat the last row and are not
 * stored. */
struct attni_panel {
    int32_t vectors;
    int32_t width; /* lanes */
    int32_t count;
    bool is_started;     /* sums hold something */
    bool is_finished;    /* output is stored */
    bool is_folded;      /* folded holds something */
    float *queries;      /* times scale: (head_dim, width) in lanes, (count, head_dim) by rows; in
                            pairs without it: (pairs of head_dim, width) */
    float *sums;         /* (width, sum_stride), of the chunk at hand */
    float *folded;       /* likewise of the chunks before it */
    attni_interval seen; /* keys of the item's range that some row sees, outer bounds */
    attni_interval kept_seen; /* seen, of the kept sights */
    attni_interval common;    /* keys that every row sees */
    int64_t head[ATTNI_PANEL_LANES];
    int64_t row[ATTNI_PANEL_LANES];
    int64_t first_key[ATTNI_PANEL_LANES]; /* the row sees [first_key, past_key) by position and */
    int64_t past_key[ATTNI_PANEL_LANES];  /* length; both ascend, past may be before first */
    float max_before[ATTNI_PANEL_LANES];  /* the largest score before the part at hand */
    attni_tile_sight sight;               /* of the block at hand, with masks */
    attni_tile_sight next;                /* of one to come, if somebody asked */
    attni_panel_state state;
    bool has_folded[ATTNI_PANEL_LANES]; /* the row has seen something in the chunks before */
    float folded_max[ATTNI_PANEL_LANES];
    double folded_sum[ATTNI_PANEL_LANES];
};

enum { ATTNI_STREAM_KEYS = 1024 }; /* of a block that a few rows meet, at most */

/* One item on its way: scratch memory and where it is. */
struct attni_fused_item {
    const attni_fused_engine *engine;
    char *slot;
    int64_t index;
    int64_t batch;
    int64_t group;
    int64_t first_head;   /* of the group */
    int64_t split;        /* of engine->num_splits */
    attni_interval range; /* of the keys: those of the split */
    attni_sequence sequence;
    attni_panel *panels;
    int64_t num_panels;
    attni_tile_keys *parts; /* of the panel at hand's tile */
    float *tile;
    uint32_t *pairs;
    float *queries;
    float *sums;
    float *folded;
    char *staging;
    float *averages;

    /* the keys at hand: [block.begin, block.end), and the extra columns in the last block */
    attni_interval block;
    attni_interval *shown; /* of these, stretches that the block mask shows to some panel: what else
                              there is was not copied */
    int64_t num_shown;
    attni_interval first; /* the first one */
    attni_interval next;  /* the block after it in which some row sees a key, or nothing */
    const void *key;      /* of block.begin; elements of plan->key_bytes */
    int64_t key_stride;
    const void *value;
    const float *dequantized; /* values of block.begin and on, value_dim apart; NULL: they are read
                                 where they lie */
    int64_t value_key_stride;
    const void **key_list; /* by rows: where each key and its value is, instead, or NULL */
    const void **value_list;
    int64_t value_chunk_stride;
    attni_ahead ahead[ATTNI_NUM_AHEAD]; /* what is needed next, in this order */
    attni_sights_key *kept_key;
    attni_tile_sight *kept; /* (max_panels, num_tiles), or NULL: nothing is kept */
    attni_ahead masks_ahead[ATTNI_MAX_MASKS]; /* rows that the next panel needs */
    attni_ahead *asked_for;                   /* while this panel's scores are computed */
    const void *extra_key;                    /* float32, as extra_value */
    int64_t extra_key_stride;
    const void *extra_value;
    int64_t extra_value_key_stride;
    int64_t extra_value_stride; /* between chunks */
};

#endif
