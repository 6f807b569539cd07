/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_lanes.c: a panel whose rows stand in the lanes of vectors: scores of a tile, their weights,
 * and the weighted values.
 */
#include "fused/fused_lanes.h"

#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_keys.h"
#include "fused/fused_lane_options.h"
#include "fused/fused_panel.h"
#include "fused/fused_values.h"

/* Keys whose values are multiplied at a time, so that a chunk of their columns stays in the
 * first-level cache for all rows of a panel. */
enum { VALUE_KEYS = 256 };

/* ---- scores and weights ---- */

static void score_tile(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys) {
    const attni_tile_kernels *tiles = item->engine->kernels->tiles;
    const int64_t head_dim = item->engine->problem->head_dim;
    float *tile = item->tile + keys->first * panel->width;
    memcpy(panel->max_before, panel->state.max, sizeof panel->state.max);
    tiles->score(tile, panel->vectors, panel->queries, head_dim,
                 attni_fused_key_at(item, keys->keys.begin), item->key_stride, keys->count,
                 panel->state.max, item->asked_for);
    if (keys->extra > 0) {
        tiles->score(tile + keys->count * panel->width, panel->vectors, panel->queries, head_dim,
                     item->extra_key, item->extra_key_stride, keys->extra, panel->state.max,
                     item->asked_for);
    }
}

static void find_weights(const attni_fused_item *item, attni_panel *panel,
                         const attni_panel_tile *tile) {
    const attni_fused_engine *engine = item->engine;
    const int64_t count = tile->count + tile->extra;
    if (engine->problem->normalizer == ATTN_NORMALIZER_SOFTMAX) {
        engine->kernels->tiles->exponentiate(item->tile, panel->vectors, count, &panel->state);
        return;
    }
    if (engine->problem->normalizer == ATTN_NORMALIZER_SIGMOID) {
        engine->kernels->float32->sigmoid(item->tile, count * panel->width);
    }
    engine->kernels->tiles->add_magnitudes(item->tile, panel->vectors, count, panel->state.sum);
}

/* What is dropped still counts in a row's sum. */
void attni_lanes_normalize(const attni_fused_item *item, attni_panel *panel,
                           const attni_panel_tile *tile) {
    find_weights(item, panel, tile);
    for (int64_t i = 0; i < tile->num_parts && item->engine->problem->dropout.is_present; ++i) {
        attni_lanes_drop(item, panel, &tile->parts[i]);
    }
}

/* ---- weighted values ---- */

/* Keys [first, first + count) of the tile times as many rows of part->values, added to the panel's
 * sums. first_key is the source key of row `first`, or ATTNI_NO_KEY for rows that all rows of the
 * panel see whole. */
static void weigh_part(const attni_fused_item *item, attni_panel *panel, attni_value_tile *part,
                       int64_t first, int64_t count, int64_t first_key) {
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    attni_fused_bound_rows(panel, first_key, count, begin, end);
    part->weights = item->tile + first * panel->width;
    part->begin = begin;
    part->end = end;
    part->is_added = panel->is_started;
    item->engine->kernels->tiles->weigh_values(part);
    part->begin = NULL; /* These two end here. */
    part->end = NULL;
    panel->is_started = true;
    part->rescale = attni_fused_ones;
}

/* The source keys of a tile; outputs are stored with the last of them if `outputs` is not NULL. */
static void weigh_keys(const attni_fused_item *item, attni_panel *panel,
                       const attni_tile_keys *keys, attni_value_tile *part, float *const *outputs) {
    for (int64_t first = 0; first < keys->count; first += VALUE_KEYS) {
        const int64_t count = attni_min(VALUE_KEYS, keys->count - first);
        part->values = attni_fused_value_at(item, keys->keys.begin + first);
        part->outputs = first + count == keys->count ? outputs : NULL;
        weigh_part(item, panel, part, keys->first + first, count, keys->keys.begin + first);
    }
}

bool attni_lanes_are_finite(const attni_fused_item *item, attni_interval keys) {
    bool is_finite = true;
    while (is_finite && keys.begin < keys.end) {
        const attni_source_rows values = attni_fused_read_values(item, keys.begin);
        const int64_t count = attni_min(values.count, keys.end - keys.begin);
        is_finite = item->engine->value_storage->are_finite(values.data, values.row_stride,
                                                            values.col_stride, count,
                                                            item->engine->problem->value_dim);
        keys.begin += count;
    }
    return is_finite;
}

bool attni_lanes_zeros_hide(const attni_fused_item *item, const attni_panel *panel,
                            const attni_tile_keys *keys) {
    const attni_interval common = attni_fused_common_keys(panel, keys);
    return attni_lanes_are_finite(item, attni_fused_keys_before(keys, common)) &&
           attni_lanes_are_finite(item, attni_fused_keys_behind(keys, common));
}

void attni_lanes_weigh_own_keys(const attni_fused_item *item, const attni_panel *panel,
                                const attni_tile_keys *keys, attni_interval part) {
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        attni_fused_add_own_values(item, panel, keys, part, lane, item->tile + lane, panel->width);
    }
}

/* As weigh_keys, where some value that not all rows see is not finite: what all rows see by a
 * product, the rest row by row, in the order of the keys, as a product has it. */
static void weigh_keys_apart(const attni_fused_item *item, attni_panel *panel,
                             const attni_tile_keys *keys, attni_value_tile *part) {
    const attni_interval common = attni_fused_common_keys(panel, keys);
    const int64_t skipped = common.begin < common.end ? common.begin - keys->keys.begin : 0;
    part->values = attni_fused_value_at(item, keys->keys.begin + skipped);
    part->outputs = NULL;
    weigh_part(item, panel, part, 0, 0, ATTNI_NO_KEY); /* brings the sums to the new maximum */
    attni_lanes_weigh_own_keys(item, panel, keys, attni_fused_keys_before(keys, common));
    weigh_part(item, panel, part, keys->first + skipped, common.end - common.begin, ATTNI_NO_KEY);
    attni_lanes_weigh_own_keys(item, panel, keys, attni_fused_keys_behind(keys, common));
}

/* Where the panel's rows of output go once they are complete. */
static void find_outputs(const attni_fused_item *item, const attni_panel *panel,
                         float *outputs[ATTNI_PANEL_LANES]) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_operand *output = &problem->output;
    const int64_t first = attni_fused_offset(item, output->strides, 0);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const int64_t offset = first + panel->head[lane] * output->strides[problem->batch_rank] +
                               panel->row[lane] * output->strides[problem->batch_rank + 1];
        outputs[lane] = item->engine->plan->stages_output
                            ? panel->sums + lane * item->engine->plan->sum_stride
                            : attni_floats_to(output->data, offset);
    }
}

attni_value_tile attni_lanes_value_tile(const attni_fused_item *item, attni_panel *panel,
                                        const attni_tile_keys *keys, const float *factor,
                                        float *outputs[ATTNI_PANEL_LANES]) {
    if (factor != NULL) {
        find_outputs(item, panel, outputs);
    }
    return (attni_value_tile){
        .vectors = panel->vectors,
        .num_rows = panel->count,
        .key_stride = item->value_key_stride,
        .chunk_stride = item->value_chunk_stride,
        .value_dim = item->engine->problem->value_dim,
        .rescale = keys->number == 0 ? panel->state.rescale : attni_fused_ones,
        .sums = panel->sums,
        .sum_stride = item->engine->plan->sum_stride,
        .factor = factor,
    };
}

static void weigh_tile(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys,
                       const float *factor) {
    float *outputs[ATTNI_PANEL_LANES];
    attni_value_tile part = attni_lanes_value_tile(item, panel, keys, factor, outputs);
    const bool is_apart = !attni_lanes_zeros_hide(item, panel, keys);
    const bool ends_here = factor != NULL && !is_apart && keys->extra == 0 && keys->count > 0;
    if (is_apart) {
        weigh_keys_apart(item, panel, keys, &part);
    } else {
        weigh_keys(item, panel, keys, &part, ends_here ? outputs : NULL);
    }
    if (keys->extra > 0 || (factor != NULL && !ends_here)) {
        part.values = item->extra_value;
        part.key_stride = item->extra_value_key_stride;
        part.chunk_stride = item->extra_value_stride;
        part.outputs = factor != NULL ? outputs : NULL;
        weigh_part(item, panel, &part, keys->first + keys->count, keys->extra, ATTNI_NO_KEY);
    }
}

void attni_lanes_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               float *const *rows, int64_t first, int64_t count,
                               const float *factor, bool is_added) {
    item->engine->kernels->lanes->store_weights(rows, item->tile + first * panel->width,
                                                panel->vectors, panel->count, count, factor,
                                                is_added);
}

const attni_tile_steps attni_steps_in_lanes = {
    .score = score_tile,
    .edit = attni_lanes_edit,
    .normalize = attni_lanes_normalize,
    .weigh = weigh_tile,
    .store_weights = attni_lanes_store_weights,
};
