/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_lane_options.c: what the options do to a tile of scores, in the order sdpa.h gives:
 * softcap, ALiBi, masks, intervals. Positions that a row must not see get the score whose weight is
 * 0.
 */
#include "fused/fused_lane_options.h"

#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_masks.h"
#include "fused/fused_panel.h"
#include "fused/fused_parts.h"
#include "problem/dropout_place.h"
#include "softmax/row_weights.h"

/* What the block mask says to the rows of a panel, lane by lane. */
typedef struct lane_blocks {
    int32_t of[ATTNI_PANEL_LANES]; /* enum attn_block */
} lane_blocks;

static float *tile_of(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys) {
    return item->tile + keys->first * panel->width;
}

static void apply_softcap(const attni_fused_item *item, const attni_panel *panel,
                          const attni_tile_keys *keys) {
    const attni_fused_engine *engine = item->engine;
    engine->kernels->float32->softcap(tile_of(item, panel, keys),
                                      (keys->count + keys->extra) * panel->width,
                                      engine->problem->softcap);
}

/* Distances are rounded from where the tile begins, wherever the keys do that the panel sees of it:
 * a row's bits do not depend on its neighbours, however far the keys are. */
static void apply_alibi(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys) {
    const attni_operand *option = &item->engine->problem->alibi_slopes;
    const int32_t head_axis = item->engine->problem->batch_rank;
    float slopes[ATTNI_PANEL_LANES];
    float distances[ATTNI_PANEL_LANES];
    const int64_t first = keys->keys.begin % item->engine->plan->key_block;
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        const int64_t position = attni_row_position(&item->sequence.visibility, panel->row[lane]);
        slopes[lane] = (float)attni_read_real(
            option->data, panel->head[lane] * option->strides[head_axis], option->dtype);
        distances[lane] = (float)attni_saturating_add(position, first - keys->keys.begin);
    }
    item->engine->kernels->lanes->alibi(tile_of(item, panel, keys), panel->vectors, first,
                                        keys->count, slopes, distances);
}

/* ---- masks ---- */

/* Puts a mask on all rows of a panel. */
static void mask_rows(const attni_fused_item *item, const attni_panel *panel,
                      const attni_mask *mask, attni_interval keys, const attni_mask_tile *tile) {
    const char *rows[ATTNI_PANEL_LANES];
    if (attni_fused_rows_share_mask(item, mask)) {
        attni_fused_find_mask_rows(item, panel, mask, keys, 1, rows);
        attni_mask_apply_keys(mask, rows[0], 1, tile);
        return;
    }
    attni_fused_find_mask_rows(item, panel, mask, keys, panel->width, rows);
    attni_mask_apply_rows(mask, rows, tile);
}

/* Whether a mask is asked about a row, of which the block mask says this. */
static bool is_asked(int32_t index, int32_t block) {
    return index == ATTNI_MASK ? block == ATTN_BLOCK_MASKED : block != ATTN_BLOCK_HIDDEN;
}

/* How many lanes ask a mask, and the first that does. */
static int32_t count_asking(const attni_panel *panel, int32_t index, const lane_blocks *blocks,
                            int32_t *first) {
    int32_t count = 0;
    for (int32_t lane = panel->width - 1; lane >= 0; --lane) {
        if (is_asked(index, blocks->of[lane])) {
            *first = lane;
            count += 1;
        }
    }
    return count;
}

/* The same for the rows that ask it: the others take the first one's row of it, and their scores
 * back. */
static void mask_asking_rows(const attni_fused_item *item, const attni_panel *panel, int32_t index,
                             const lane_blocks *blocks, int32_t first, attni_interval keys,
                             const attni_mask_tile *tile) {
    float *kept = attni_floats_to(item->slot + item->engine->plan->kept_scores_offset, 0);
    attni_panel asking = *panel;
    memcpy(kept, tile->scores, (size_t)(tile->num_keys * panel->width) * sizeof(float));
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        if (!is_asked(index, blocks->of[lane])) {
            asking.head[lane] = panel->head[first];
            asking.row[lane] = panel->row[first];
        }
    }
    mask_rows(item, &asking, &item->engine->problem->masks[index], keys, tile);
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        for (int64_t j = 0; j < tile->num_keys && !is_asked(index, blocks->of[lane]); ++j) {
            tile->scores[j * panel->width + lane] = kept[j * panel->width + lane];
        }
    }
}

/* One mask, where it changes anything; with is_added, an additive one is added, else it only
 * excludes. */
static void apply_mask(const attni_fused_item *item, const attni_panel *panel,
                       const attni_tile_keys *keys, const lane_blocks *blocks, int32_t index,
                       bool is_added) {
    const attni_fused_engine *engine = item->engine;
    const attni_interval changed =
        attni_interval_between(attni_max(keys->changed[index].begin, keys->keys.begin),
                               attni_min(keys->changed[index].end, keys->keys.end));
    const attni_mask_tile tile = {
        .kernels = engine->kernels->lanes,
        .scores = tile_of(item, panel, keys) + (changed.begin - keys->keys.begin) * panel->width,
        .vectors = panel->vectors,
        .width = panel->width,
        .num_keys = changed.end - changed.begin,
        .is_added = is_added,
        .excluded = (float)attni_excluded_score(engine->problem->normalizer)};
    int32_t first = 0;
    const int32_t asking =
        blocks != NULL ? count_asking(panel, index, blocks, &first) : panel->width;
    if (changed.begin >= changed.end || asking == 0) {
        return;
    }
    if (asking < panel->width) {
        mask_asking_rows(item, panel, index, blocks, first, changed, &tile);
        return;
    }
    mask_rows(item, panel, &engine->problem->masks[index], changed, &tile);
}

/* A later additive mask must not bring back what an earlier one excluded. */
static void apply_masks(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys, const lane_blocks *blocks) {
    const attni_mask *masks = item->engine->problem->masks;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS && keys->changed != NULL; ++i) {
        apply_mask(item, panel, keys, blocks, i, true);
        const bool may_restore =
            keys->changed[i].begin < keys->changed[i].end && attni_mask_may_restore(&masks[i]);
        for (int32_t earlier = 0; earlier < i && may_restore; ++earlier) {
            apply_mask(item, panel, keys, blocks, earlier, false);
        }
    }
}

static void clip(const attni_fused_item *item, const attni_panel *panel,
                 const attni_tile_keys *keys, const int32_t *begin, const int32_t *end) {
    item->engine->kernels->lanes->clip(
        tile_of(item, panel, keys), panel->vectors, keys->count, begin, end,
        (float)attni_excluded_score(item->engine->problem->normalizer));
}

/* Hides keys that are alike for each row from those whose blocks say so. */
static void hide_blocks(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys, const lane_blocks *blocks) {
    static const int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        end[lane] = blocks->of[lane] != ATTN_BLOCK_HIDDEN ? (int32_t)keys->count : 0;
    }
    clip(item, panel, keys, begin, end);
}

/* Masks of a part whose rows the block mask tells apart, from the rest or from each other. */
static void apply_by_blocks(const attni_fused_item *item, const attni_panel *panel,
                            const attni_tile_keys *keys) {
    attni_tile_keys piece = *keys;
    lane_blocks blocks;
    for (int64_t begin = keys->keys.begin; begin < keys->keys.end; begin = piece.keys.end) {
        piece.keys = (attni_interval){begin, keys->keys.end};
        piece.keys.end = attni_fused_read_blocks(item, panel, piece.keys, blocks.of);
        piece.count = piece.keys.end - begin;
        piece.first = keys->first + begin - keys->keys.begin;
        apply_masks(item, panel, &piece, &blocks);
        if (!keys->are_shown) {
            hide_blocks(item, panel, &piece, &blocks);
        }
    }
}

static void clip_rows(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys) {
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    attni_fused_bound_rows(panel, keys->keys.begin, keys->count, begin, end);
    clip(item, panel, keys, begin, end);
}

/* ---- all ---- */

static bool is_changed_by_masks(const attni_tile_keys *keys) {
    bool is_changed = false;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS && keys->changed != NULL; ++i) {
        is_changed |= keys->changed[i].begin < keys->changed[i].end;
    }
    return is_changed;
}

void attni_lanes_edit(const attni_fused_item *item, attni_panel *panel,
                      const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const bool is_ragged = keys->count > 0 && (keys->keys.begin < panel->common.begin ||
                                               keys->keys.end > panel->common.end);
    const bool is_masked = is_changed_by_masks(keys);
    const bool has_slopes = keys->count > 0 && problem->alibi_slopes.is_present;
    const bool has_blocks =
        attni_has_blocks(problem) &&
        (!keys->are_shown || (is_masked && problem->masks[ATTNI_MASK].kind != ATTN_MASK_NONE));
    if (!is_ragged && !is_masked && !has_blocks && !has_slopes && problem->softcap == 0) {
        return; /* the maxima of the products stand */
    }
    if (problem->softcap != 0) {
        apply_softcap(item, panel, keys);
    }
    if (has_slopes) {
        apply_alibi(item, panel, keys);
    }
    if (has_blocks) {
        apply_by_blocks(item, panel, keys);
    } else if (is_masked) {
        apply_masks(item, panel, keys, NULL);
    }
    if (is_ragged) {
        clip_rows(item, panel, keys);
    }
    attni_panel_state *state = &panel->state;
    memcpy(state->max, panel->max_before, sizeof state->max);
    item->engine->kernels->tiles->find_max(tile_of(item, panel, keys), panel->vectors,
                                           keys->count + keys->extra, state->max);
}

void attni_lanes_drop(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_lane_kernels *lanes = item->engine->kernels->lanes;
    float *tile = item->tile + keys->first * panel->width;
    uint32_t rows[ATTNI_PANEL_LANES];
    uint32_t heads[ATTNI_PANEL_LANES];
    attni_dropout_place place = {{{0}, 0, 0, 0}, 0, 0, 0};
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        place = attni_dropout_place_of(problem, item->batch, panel->head[lane], panel->row[lane]);
        rows[lane] = place.row;
        heads[lane] = place.head;
    }
    lanes->drop(tile, panel->vectors, place.column + keys->keys.begin, keys->count, rows, heads,
                &place.stream);
    lanes->drop(tile + keys->count * panel->width, panel->vectors, place.column + problem->src_len,
                keys->extra, rows, heads, &place.stream);
}
