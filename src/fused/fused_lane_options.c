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
#include "problem/dropout_place.h"
#include "fused/fused_panel.h"
#include "softmax/row_weights.h"

static void apply_softcap(const attni_fused_item *item, const attni_panel *panel,
                          const attni_tile_keys *keys) {
    const attni_fused_engine *engine = item->engine;
    engine->kernels->float32->softcap(item->tile, (keys->count + keys->extra) * panel->width,
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
    item->engine->kernels->lanes->alibi(item->tile, panel->vectors, first, keys->count, slopes,
                                        distances);
}

/* One mask, where it changes anything; with is_added, an additive one is added, else it only
 * excludes. */
static void apply_mask(const attni_fused_item *item, const attni_panel *panel,
                       const attni_tile_keys *keys, int32_t index, bool is_added) {
    const attni_fused_engine *engine = item->engine;
    const attni_mask *mask = &engine->problem->masks[index];
    const attni_interval changed = keys->changed[index];
    const attni_mask_tile tile = {
        .kernels = engine->kernels->lanes,
        .scores = item->tile + (changed.begin - keys->keys.begin) * panel->width,
        .vectors = panel->vectors,
        .width = panel->width,
        .num_keys = changed.end - changed.begin,
        .is_added = is_added,
        .excluded = (float)attni_excluded_score(engine->problem->normalizer)};
    if (changed.begin >= changed.end) {
        return;
    }
    const char *rows[ATTNI_PANEL_LANES];
    if (attni_fused_rows_share_mask(item, mask)) {
        attni_fused_find_mask_rows(item, panel, mask, changed, 1, rows);
        attni_mask_apply_keys(mask, rows[0], 1, &tile);
        return;
    }
    attni_fused_find_mask_rows(item, panel, mask, changed, panel->width, rows);
    attni_mask_apply_rows(mask, rows, &tile);
}

/* A later additive mask must not bring back what an earlier one excluded. */
static void apply_masks(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys) {
    const attni_mask *masks = item->engine->problem->masks;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        apply_mask(item, panel, keys, i, true);
        const bool may_restore =
            keys->changed[i].begin < keys->changed[i].end && attni_mask_may_restore(&masks[i]);
        for (int32_t earlier = 0; earlier < i && may_restore; ++earlier) {
            apply_mask(item, panel, keys, earlier, false);
        }
    }
}

static void clip_rows(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys) {
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    attni_fused_bound_rows(panel, keys->keys.begin, keys->count, begin, end);
    item->engine->kernels->lanes->clip(
        item->tile, panel->vectors, keys->count, begin, end,
        (float)attni_excluded_score(item->engine->problem->normalizer));
}

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
    if (!is_ragged && !is_masked && !has_slopes && problem->softcap == 0) {
        return; /* the maxima of the products stand */
    }
    if (problem->softcap != 0) {
        apply_softcap(item, panel, keys);
    }
    if (has_slopes) {
        apply_alibi(item, panel, keys);
    }
    if (is_masked) {
        apply_masks(item, panel, keys);
    }
    if (is_ragged) {
        clip_rows(item, panel, keys);
    }
    attni_panel_state *state = &panel->state;
    memcpy(state->max, state->old_max, sizeof state->max);
    item->engine->kernels->tiles->find_max(item->tile, panel->vectors, keys->count + keys->extra,
                                           state->max);
}

void attni_lanes_drop(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_lane_kernels *lanes = item->engine->kernels->lanes;
    uint32_t rows[ATTNI_PANEL_LANES];
    uint32_t heads[ATTNI_PANEL_LANES];
    attni_dropout_place place = {{{0}, 0, 0, 0}, 0, 0, 0};
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        place = attni_dropout_place_of(problem, item->batch, panel->head[lane], panel->row[lane]);
        rows[lane] = place.row;
        heads[lane] = place.head;
    }
    lanes->drop(item->tile, panel->vectors, place.column + keys->keys.begin, keys->count, rows,
                heads, &place.stream);
    lanes->drop(item->tile + keys->count * panel->width, panel->vectors,
                place.column + problem->src_len, keys->extra, rows, heads, &place.stream);
}
