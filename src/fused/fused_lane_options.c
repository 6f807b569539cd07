/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_lane_options.c: what the options do to a tile of scores, in the order sdpa.h gives:
 * softcap, ALiBi, masks, intervals. Positions that a row must not see get the score whose weight is
 * 0.
 */
#include "fused/fused_lane_options.h"

#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"
#include "softmax/row_weights.h"

static void apply_softcap(const attni_fused_item *item, const attni_panel *panel,
                          const attni_tile_keys *keys) {
    const attni_fused_engine *engine = item->engine;
    engine->kernels->float32->softcap(item->tile, (keys->count + keys->extra) * panel->width,
                                      engine->problem->softcap);
}

static void apply_alibi(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys) {
    const attni_operand *option = &item->engine->problem->alibi_slopes;
    const int32_t head_axis = item->engine->problem->batch_rank;
    float slopes[ATTNI_PANEL_LANES];
    float distances[ATTNI_PANEL_LANES];
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        const int64_t position = attni_row_position(&item->visibility, panel->row[lane]);
        slopes[lane] = (float)attni_read_real(
            option->data, panel->head[lane] * option->strides[head_axis], option->dtype);
        distances[lane] = (float)attni_saturating_add(position, -keys->keys.begin);
    }
    item->engine->kernels->lanes->alibi(item->tile, panel->vectors, keys->count, slopes, distances);
}

/* Whether all rows of a panel share the mask's row. */
static bool is_same_for_rows(const attni_fused_item *item, const int64_t *strides) {
    return strides[1] == 0 && (strides[0] == 0 || item->engine->plan->group == 1);
}

/* Copies mask elements to where they are side by side, additive ones as float32. */
static void stage_row(const attni_fused_item *item, const attni_mask *mask, char *to,
                      const char *from, int64_t stride, int64_t count) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        const attni_storage_kernels *storage =
            attni_storage_kernels_of(item->engine->kernels, mask->dtype);
        storage->widen(attni_floats_to(to, 0), from, stride, count);
        return;
    }
    for (int64_t j = 0; j < count; ++j) {
        to[j] = from[j * stride];
    }
}

/* The panel's rows of a mask, from the tile's first key on, as kernels read them: side by side
 * along the keys. */
static void find_mask_rows(const attni_fused_item *item, const attni_panel *panel,
                           const attni_tile_keys *keys, const attni_mask *mask,
                           const char *rows[ATTNI_PANEL_LANES]) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    const size_t bytes = attn_dtype_size_bytes(mask->dtype);
    const bool is_staged = (strides[2] != 1 && keys->count > 1) || attni_mask_is_narrow(mask);
    const int64_t first =
        attni_fused_offset(item, mask->strides, 0) + keys->keys.begin * strides[2];
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        const int64_t offset =
            first + panel->head[lane] * strides[0] + panel->row[lane] * strides[1];
        rows[lane] = mask->data + offset * (int64_t)bytes;
        if (is_staged) {
            char *staged =
                item->staging + lane * item->engine->plan->tile_keys * (int64_t)sizeof(float);
            stage_row(item, mask, staged, rows[lane], strides[2], keys->count);
            rows[lane] = staged;
        }
    }
}

/* A mask that all rows of the panel share. */
static void apply_shared_mask(const attni_fused_item *item, const attni_panel *panel,
                              const attni_tile_keys *keys, const attni_mask *mask,
                              const attni_mask_tile *tile) {
    const int64_t stride = mask->strides[item->engine->problem->batch_rank + 2];
    const int64_t offset =
        attni_fused_offset(item, mask->strides, panel->head[0]) + keys->keys.begin * stride;
    const char *first = mask->data + offset * (int64_t)attn_dtype_size_bytes(mask->dtype);
    if (attni_mask_is_narrow(mask)) {
        stage_row(item, mask, item->staging, first, stride, keys->count);
        attni_mask_apply_keys(mask, item->staging, 1, tile);
        return;
    }
    attni_mask_apply_keys(mask, first, stride, tile);
}

/* One mask; with is_added, an additive one is added, else it only excludes. */
static void apply_mask(const attni_fused_item *item, const attni_panel *panel,
                       const attni_tile_keys *keys, const attni_mask *mask, bool is_added) {
    const attni_fused_engine *engine = item->engine;
    const int64_t *strides = &mask->strides[engine->problem->batch_rank];
    const float excluded = (float)attni_excluded_score(engine->problem->normalizer);
    const attni_mask_tile tile = {.kernels = engine->kernels->lanes,
                                  .scores = item->tile,
                                  .vectors = panel->vectors,
                                  .width = panel->width,
                                  .num_keys = keys->count,
                                  .is_added = is_added,
                                  .excluded = excluded};
    if (is_same_for_rows(item, strides)) {
        apply_shared_mask(item, panel, keys, mask, &tile);
        return;
    }
    const char *rows[ATTNI_PANEL_LANES];
    find_mask_rows(item, panel, keys, mask, rows);
    attni_mask_apply_rows(mask, rows, &tile);
}

/* A later additive mask must not bring back what an earlier one excluded. */
static void apply_masks(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys) {
    const attni_mask *masks = item->engine->problem->masks;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (masks[i].kind == ATTN_MASK_NONE) {
            continue;
        }
        apply_mask(item, panel, keys, &masks[i], true);
        for (int32_t earlier = 0; earlier < i && attni_mask_may_restore(&masks[i]); ++earlier) {
            if (masks[earlier].kind != ATTN_MASK_NONE) {
                apply_mask(item, panel, keys, &masks[earlier], false);
            }
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

static bool has_masks(const attni_sdpa_problem *problem) {
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (problem->masks[i].kind != ATTN_MASK_NONE) {
            return true;
        }
    }
    return false;
}

void attni_lanes_edit(const attni_fused_item *item, attni_panel *panel,
                      const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const bool is_ragged = keys->count > 0 && (keys->keys.begin < panel->common.begin ||
                                               keys->keys.end > panel->common.end);
    const bool is_masked = keys->count > 0 && has_masks(problem);
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
