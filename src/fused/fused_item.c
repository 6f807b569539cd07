/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_item.c: items in their order, each at its batch, group and split of the keys.
 */
#include "fused/fused_item.h"

#include "problem/batch_sequence.h"

void attni_fused_go_to(attni_fused_item *item, int64_t batch, int64_t group, int64_t split) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_fused_plan *plan = item->engine->plan;
    item->batch = batch;
    item->group = group;
    item->first_head = group * plan->group;
    item->split = split;
    item->range = (attni_interval){0, problem->src_len};
    if (item->engine->num_splits > 1) {
        item->range.begin = (item->engine->chunks.begin + split) * plan->chunk_keys;
        item->range.end = attni_min(item->range.begin + plan->chunk_keys, problem->src_len);
    }
    item->sequence = attni_batch_sequence(problem, batch);
}

/* Items are ordered by what they cost, the largest first, so that none is left for the end: of
 * causal attention the last rows see most keys. */
int64_t attni_fused_go_to_item(attni_fused_item *item, int64_t index) {
    const attni_fused_plan *plan = item->engine->plan;
    const int64_t num_splits = item->engine->num_splits;
    const int64_t per_block = item->engine->num_items / plan->num_blocks;
    const int64_t place = index % per_block;
    const int64_t split = place % num_splits;
    const int64_t matrix = place / num_splits;
    const int64_t groups = plan->averages ? 1 : plan->num_groups;
    item->index = index;
    attni_fused_go_to(item, matrix / groups, matrix % groups, split);
    return plan->num_blocks - 1 - index / per_block;
}

attni_fused_item attni_fused_item_in(const attni_fused_engine *engine, int32_t slot_index) {
    const attni_fused_plan *plan = engine->plan;
    char *slot = engine->scratch + plan->slots_offset + (size_t)slot_index * plan->slot_bytes;
    return (attni_fused_item){
        .engine = engine,
        .slot = slot,
        .panels = (attni_panel *)(void *)(slot + plan->panels_offset),
        .parts = (attni_tile_keys *)(void *)(slot + plan->parts_offset),
        .shown = (attni_interval *)(void *)(slot + plan->shown_offset),
        .tile = attni_floats_to(slot + plan->tile_offset, 0),
        .pairs = (uint32_t *)(void *)(slot + plan->pairs_offset),
        .queries = attni_floats_to(slot + plan->queries_offset, 0),
        .sums = attni_floats_to(slot + plan->sums_offset, 0),
        .folded = attni_floats_to(slot + plan->folded_offset, 0),
        .staging = slot + plan->staging_offset,
        .averages = attni_floats_to(slot + plan->averages_offset, 0),
        .kept_key = (attni_sights_key *)(void *)(slot + plan->kept_key_offset),
        .kept = plan->keeps_sights ? (attni_tile_sight *)(void *)(slot + plan->kept_offset) : NULL,
    };
}
