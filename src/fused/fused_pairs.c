/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_pairs.c: a panel of bfloat16 whose rows stand in the lanes of vectors, where the CPU
 * multiplies pairs: scores from pairs of features, values weighed in pairs of keys. Scores and
 * their sums are float32, the same as in fused_lanes.c; weights are rounded for the product alone.
 */
#include "fused/fused_pairs.h"

#include <string.h>

#include "base/checked_size.h"
#include "fused/fused_item.h"
#include "fused/fused_keys.h"
#include "fused/fused_lane_options.h"
#include "fused/fused_lanes.h"
#include "fused/fused_panel.h"
#include "fused/fused_parts.h"

/* Pairs of keys whose values are multiplied at a time, so that a chunk of their columns stays in
 * the first-level cache for all rows of a panel. */
enum { VALUE_PAIRS = 128 };

static void score_tile(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    memcpy(panel->max_before, panel->state.max, sizeof panel->state.max);
    item->engine->pairs->score(item->tile + keys->first * panel->width, panel->vectors,
                               (const uint32_t *)(const void *)panel->queries,
                               attni_divide_up(problem->head_dim, 2), (float)problem->scale,
                               attni_fused_key_at(item, keys->keys.begin), item->key_stride,
                               keys->count, panel->state.max, item->asked_for);
}

/* The pairs of a part: no part before it has as many. */
static uint32_t *pairs_of(const attni_fused_item *item, const attni_panel *panel,
                          const attni_tile_keys *keys) {
    return item->pairs + (keys->first / 2 + keys->number) * panel->width;
}

static void normalize_tile(const attni_fused_item *item, attni_panel *panel,
                           const attni_panel_tile *tile) {
    attni_lanes_normalize(item, panel, tile);
    for (int64_t i = 0; i < tile->num_parts; ++i) {
        const attni_tile_keys *keys = &tile->parts[i];
        item->engine->pairs->pair_weights(pairs_of(item, panel, keys),
                                          item->tile + keys->first * panel->width, panel->vectors,
                                          keys->count, (int32_t)(keys->keys.begin % 2));
    }
}

/* ---- weighted values ---- */

/* `count` pairs, from pair `first` of `pairs` on, whose lanes need [begin, end) of those. */
static void weigh_part(const attni_fused_item *item, attni_panel *panel, attni_value_tile *part,
                       const uint32_t *pairs, int64_t first, int64_t count, const int32_t *begin,
                       const int32_t *end) {
    int32_t own_begin[ATTNI_PANEL_LANES];
    int32_t own_end[ATTNI_PANEL_LANES];
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        own_begin[lane] = (int32_t)attni_clamp(begin[lane] - first, 0, count);
        own_end[lane] = (int32_t)attni_clamp(end[lane] - first, 0, count);
    }
    part->weights = (const float *)(const void *)(pairs + first * panel->width);
    part->begin = own_begin;
    part->end = own_end;
    part->is_added = panel->is_started;
    item->engine->pairs->weigh_values(part);
    part->begin = NULL; /* These two end here. */
    part->end = NULL;
    panel->is_started = true;
    part->rescale = attni_fused_ones;
}

/* Brings the sums to the new maximum, and to the outputs if there are any. */
static void weigh_nothing(const attni_fused_item *item, attni_panel *panel,
                          attni_value_tile *part) {
    const int32_t none[ATTNI_PANEL_LANES] = {0};
    weigh_part(item, panel, part, item->pairs, 0, 0, none, none);
}

/* The pairs of a tile; outputs are stored with the last of them if `outputs` is not NULL. */
static void weigh_pairs(const attni_fused_item *item, attni_panel *panel,
                        const attni_tile_keys *keys, attni_value_tile *part,
                        float *const *outputs) {
    const int32_t parity = (int32_t)(keys->keys.begin % 2);
    const int64_t pairs = attni_divide_up(keys->count + parity, 2);
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    attni_fused_bound_rows(panel, keys->keys.begin, keys->count, begin, end);
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        begin[lane] = (begin[lane] + parity) / 2;
        end[lane] = (end[lane] + parity + 1) / 2;
    }
    for (int64_t first = 0; first < pairs; first += VALUE_PAIRS) {
        const int64_t count = attni_min(VALUE_PAIRS, pairs - first);
        part->values = attni_fused_value_pair_at(item, keys->keys.begin + 2 * first);
        part->outputs = first + count == pairs ? outputs : NULL;
        weigh_part(item, panel, part, pairs_of(item, panel, keys), first, count, begin, end);
    }
}

/* A part may begin or end within a pair whose other key no row of the panel sees, and which some
 * other panel may. */
static bool is_other_finite(const attni_fused_item *item, int64_t key) {
    return !attni_fused_is_shown(item, key) ||
           attni_lanes_are_finite(item, (attni_interval){key, key + 1});
}

static bool zeros_hide(const attni_fused_item *item, const attni_panel *panel,
                       const attni_tile_keys *keys) {
    const attni_interval own = keys->keys;
    return attni_lanes_zeros_hide(item, panel, keys) &&
           (own.begin % 2 == 0 || is_other_finite(item, own.begin - 1)) &&
           (own.end % 2 == 0 || is_other_finite(item, own.end));
}

/* Where some value that not all rows see is not finite every row adds its own. */
static void weigh_tile(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys,
                       const float *factor) {
    float *outputs[ATTNI_PANEL_LANES];
    attni_value_tile part = attni_lanes_value_tile(item, panel, keys, factor, outputs);
    if (keys->count > 0 && zeros_hide(item, panel, keys)) {
        weigh_pairs(item, panel, keys, &part, factor != NULL ? outputs : NULL);
        return;
    }
    weigh_nothing(item, panel, &part);
    attni_lanes_weigh_own_keys(item, panel, keys, keys->keys);
    if (factor != NULL) {
        part.outputs = outputs;
        weigh_nothing(item, panel, &part);
    }
}

const attni_tile_steps attni_steps_by_pairs = {
    .score = score_tile,
    .edit = attni_lanes_edit,
    .normalize = normalize_tile,
    .weigh = weigh_tile,
    .store_weights = attni_lanes_store_weights,
};
