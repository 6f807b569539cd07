/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_engine.c: attention tile by tile, without a matrix of scores. For every block of query rows
 *
 *     for every block of keys that some row sees
 *         for every panel of rows
 *             scores  = scale * Q K^T, then softcap, ALiBi, masks
 *             weights = exp(scores - max), max the largest score of the row in this chunk so far
 *             sums    = exp(old max - max) * sums + weights * V
 *             at the end of a chunk, add it to the chunks before it: fused_merge.c
 *     output = sums / sum of weights
 *
 * (Milakov and Gimelshein, 2018; Dao et al., 2022). Keys and values are read where they lie unless
 * their layout forbids it; what is copied, a block at a time, is where layouts end: kernels see
 * one.
 */
#include "fused/fused_engine.h"

#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_keys.h"
#include "fused/fused_lanes.h"
#include "fused/fused_merge.h"
#include "fused/fused_pairs.h"
#include "fused/fused_panel.h"
#include "fused/fused_parts.h"
#include "fused/fused_rows.h"
#include "fused/fused_sights.h"
#include "fused/fused_weights.h"
#include "problem/batch_sequence.h"

/* A panel has seen a chunk, but not all its keys. */
static void end_chunk(attni_fused_item *item, attni_panel *panel) {
    if (item->engine->num_splits > 1) {
        attni_fused_put_aside(item, panel, item->split);
        attni_fused_start_panel(panel);
    } else {
        attni_fused_fold_panel(item, panel);
    }
}

static void weigh_parts(attni_fused_item *item, attni_panel *panel, const attni_panel_tile *tile,
                        const float *factor) {
    for (int64_t i = 0; i < tile->num_parts; ++i) {
        const bool is_last = i + 1 == tile->num_parts;
        item->engine->steps->weigh(item, panel, &tile->parts[i], is_last ? factor : NULL);
    }
}

/* A panel has seen all its keys: its results are stored, or put aside, the extra columns' behind
 * those of all chunks. */
static void finish_panel(attni_fused_item *item, attni_panel *panel, const attni_panel_tile *tile) {
    const attni_fused_engine *engine = item->engine;
    float factor[ATTNI_PANEL_LANES];
    panel->is_finished = true;
    if (engine->num_splits > 1) {
        weigh_parts(item, panel, tile, NULL);
        attni_fused_put_aside(item, panel, tile->extra > 0 ? engine->num_splits : item->split);
        return;
    }
    if (panel->is_folded) {
        weigh_parts(item, panel, tile, NULL);
        attni_fused_fold_panel(item, panel);
        attni_fused_finish_folded(item, panel);
        return;
    }
    attni_fused_finish_panel(item, panel, factor);
    if (engine->problem->weights.is_present) {
        attni_fused_store_weights(item, panel, tile, factor);
    }
    weigh_parts(item, panel, tile, factor);
    attni_fused_store_output(item, panel, panel->sums, engine->plan->stages_output);
}

static void run_tile(attni_fused_item *item, attni_panel *panel, const attni_panel_tile *tile) {
    const attni_fused_engine *engine = item->engine;
    memcpy(panel->state.old_max, panel->state.max, sizeof panel->state.max);
    for (int64_t i = 0; i < tile->num_parts; ++i) {
        engine->steps->score(item, panel, &tile->parts[i]);
        engine->steps->edit(item, panel, &tile->parts[i]);
    }
    engine->steps->normalize(item, panel, tile);
    if (tile->is_last) {
        finish_panel(item, panel, tile);
    } else {
        weigh_parts(item, panel, tile, NULL);
    }
}

/* The extra columns are a chunk of their own, but for a panel with weights to store: which tile of
 * keys is a row's last depends on the other rows of its panel. */
static void run_extra_columns(attni_fused_item *item, attni_panel *panel, int64_t count) {
    const attni_tile_keys extra = {
        .keys = {item->block.begin, item->block.begin}, .extra = count, .are_shown = true};
    const attni_panel_tile tile = {
        .parts = &extra, .num_parts = 1, .extra = count, .is_last = true};
    if (panel->is_started || item->engine->num_splits > 1) {
        end_chunk(item, panel);
    }
    run_tile(item, panel, &tile);
}

/* The parts of the keys at hand that a panel sees; `extra` columns stand behind the last. */
static attni_panel_tile tile_of_block(const attni_fused_item *item, attni_panel *panel,
                                      int64_t extra) {
    const attni_interval keys = attni_fused_see_block(item, panel);
    attni_panel_tile tile = attni_fused_cut_tile(item, panel, keys);
    tile.extra = extra;
    item->parts[tile.num_parts - 1].extra = extra;
    for (int64_t i = 0; i < tile.num_parts && item->engine->plan->has_masks; ++i) {
        item->parts[i].changed = panel->sight.changed;
    }
    return tile;
}

/* What a panel has to do with the keys at hand, if anything. The extra columns are the last
 * split's. */
static void run_panel(attni_fused_item *item, attni_panel *panel) {
    const attni_fused_engine *engine = item->engine;
    const bool is_last = panel->seen.end <= item->block.end && !panel->is_finished;
    const bool has_extra = is_last && item->split + 1 == engine->num_splits;
    const int64_t extra = has_extra ? engine->problem->extra_cols : 0;
    const bool is_apart = extra > 0 && !engine->problem->weights.is_present;
    attni_panel_tile tile = tile_of_block(item, panel, is_apart ? 0 : extra);
    tile.is_last = is_last && !is_apart;
    if (tile.count > 0 || tile.is_last) {
        run_tile(item, panel, &tile);
    }
    if (is_apart) {
        run_extra_columns(item, panel, extra);
    } else if (panel->is_started && panel->seen.end > item->block.end &&
               item->next.begin / engine->plan->chunk_keys !=
                   item->block.begin / engine->plan->chunk_keys) {
        end_chunk(item, panel);
    }
}

/* The keys that some panel sees. */
static attni_interval seen_by_panels(const attni_fused_item *item) {
    attni_interval seen = {0, 0};
    for (int64_t p = 0; p < item->num_panels; ++p) {
        const attni_interval own = item->panels[p].seen;
        if (own.begin < own.end) {
            const bool is_first = seen.begin == seen.end;
            seen.begin = is_first ? own.begin : attni_min(seen.begin, own.begin);
            seen.end = is_first ? own.end : attni_max(seen.end, own.end);
        }
    }
    return seen;
}

/* The next tile from key `begin` on in which some panel sees a key, or has its end. Nothing behind
 * the end of all. */
static attni_interval next_block(const attni_fused_item *item, int64_t begin, int64_t end) {
    const attni_fused_plan *plan = item->engine->plan;
    while (begin < end) {
        const attni_interval block = {begin, attni_min(attni_fused_past_tile(plan, begin), end)};
        const bool has_blocks = attni_has_blocks(item->engine->problem);
        const attni_interval shown = has_blocks ? attni_fused_shown_block(item, block) : block;
        bool is_needed = !plan->looks_at_masks && shown.begin < shown.end;
        for (int64_t p = 0; p < item->num_panels && plan->looks_at_masks && !is_needed; ++p) {
            attni_panel *panel = &item->panels[p];
            is_needed = (panel->seen.end > block.begin && panel->seen.end <= block.end) ||
                        attni_fused_sees_next(item, panel, block);
        }
        if (is_needed) {
            return shown;
        }
        begin = block.end;
    }
    return (attni_interval){end, end};
}

/* What is asked for while a panel is scored: masks of the panel after it, beside the rest. */
static attni_ahead *ahead_of_panel(attni_fused_item *item, int64_t index) {
    enum { KEYS_OF_A_STEP = 16 };
    const bool is_last = index + 1 == item->num_panels;
    const attni_interval block = is_last ? item->next : item->block;
    attni_ahead *ahead = attni_fused_ahead(item);
    if (!item->engine->plan->asks_for_masks || block.begin >= block.end) {
        return ahead;
    }
    return attni_fused_masks_ahead(
        item, &item->panels[is_last ? 0 : index + 1], block,
        attni_divide_up(item->block.end - item->block.begin, KEYS_OF_A_STEP), ahead);
}

static void run_block(attni_fused_item *item, int64_t block) {
    attni_fused_place_panels(item, block);
    attni_fused_pack_queries(item);
    attni_fused_trim_panels(item, block);
    attni_fused_trim_to_blocks(item);
    const attni_interval seen = seen_by_panels(item);
    item->first = next_block(item, seen.begin, seen.end);
    item->next = item->first;
    do {
        attni_fused_take_block(item, item->next);
        for (int64_t p = 0; p < item->num_panels && item->engine->plan->looks_at_masks; ++p) {
            item->panels[p].sight = item->panels[p].next;
        }
        item->next = next_block(item, item->block.end, seen.end);
        attni_fused_look_ahead(item, item->next);
        for (int64_t p = 0; p < item->num_panels; ++p) {
            item->asked_for = ahead_of_panel(item, p);
            run_panel(item, &item->panels[p]);
        }
    } while (item->next.begin < seen.end);
}

void attni_fused_run_item(void *data, int32_t slot, int64_t index) {
    const attni_fused_engine *engine = data;
    attni_fused_item item = attni_fused_item_in(engine, slot);
    const int64_t block = attni_fused_go_to_item(&item, index);
    if (!engine->plan->averages) {
        run_block(&item, block);
        return;
    }
    attni_fused_clear_averages(&item, block);
    for (int64_t group = 0; group < engine->plan->num_groups; ++group) {
        attni_fused_go_to(&item, item.batch, group, 0);
        run_block(&item, block);
    }
    attni_fused_store_averages(&item, block);
}

/* The chunks that some row sees keys of: those of a cache that is mostly empty cost nothing. */
static attni_interval find_chunks(const attni_sdpa_problem *problem, const attni_fused_plan *plan) {
    attni_interval chunks = {plan->num_chunks, 0};
    for (int64_t batch = 0; batch < problem->num_batches; ++batch) {
        const attni_sequence sequence = attni_batch_sequence(problem, batch);
        const attni_interval seen = attni_rows_union(&sequence.visibility, 0, problem->tgt_len);
        if (seen.begin < seen.end) {
            chunks.begin = attni_min(chunks.begin, seen.begin / plan->chunk_keys);
            chunks.end = attni_max(chunks.end, attni_divide_up(seen.end, plan->chunk_keys));
        }
    }
    return chunks.begin < chunks.end ? chunks : (attni_interval){0, 1};
}

attni_interval attni_fused_dealt_chunks(const attni_sdpa_problem *problem,
                                        const attni_fused_plan *plan) {
    return plan->spreads && plan->num_items > 0 ? find_chunks(problem, plan)
                                                : (attni_interval){0, 1};
}

attni_fused_engine attni_fused_engine_of(const attn_context *context,
                                         const attni_sdpa_problem *problem,
                                         const attni_fused_plan *plan, attni_interval chunks,
                                         char *scratch) {
    const attni_kernel_set *kernels = attni_context_kernels(context);
    const int64_t num_splits = chunks.end - chunks.begin;
    return (attni_fused_engine){
        .problem = problem,
        .plan = plan,
        .kernels = kernels,
        .steps = plan->by_rows    ? &attni_steps_by_rows
                 : plan->by_pairs ? &attni_steps_by_pairs
                                  : &attni_steps_in_lanes,
        .pairs = kernels->pairs,
        .query_storage = attni_storage_kernels_of(kernels, problem->query.dtype),
        .key_storage = attni_storage_kernels_of(kernels, problem->key.dtype),
        .value_storage = attni_storage_kernels_of(kernels, problem->value.dtype),
        .output_storage = attni_storage_kernels_of(kernels, problem->output.dtype),
        .weights_storage = attni_storage_kernels_of(kernels, problem->weights.dtype),
        .key_streams = plan->folds_key_scales
                           ? kernels->int8_streams
                           : attni_stream_kernels_of(kernels, problem->key.dtype),
        .value_streams = plan->folds_value_scales
                             ? kernels->int8_streams
                             : attni_stream_kernels_of(kernels, problem->value.dtype),
        .float32_storage = attni_storage_kernels_of(kernels, ATTN_DTYPE_FLOAT32),
        .float32_streams = attni_stream_kernels_of(kernels, ATTN_DTYPE_FLOAT32),
        .scratch = scratch,
        .chunks = chunks,
        .num_splits = num_splits,
        .num_items =
            plan->spreads ? plan->num_items / plan->num_chunks * num_splits : plan->num_items,
    };
}

void attni_fused_forget_sights(const attni_fused_engine *engine, int32_t slot) {
    if (engine->plan->keeps_sights) {
        attni_fused_item_in(engine, slot).kept_key->is_valid = false;
    }
}

attn_status attni_fused_run(attn_context *context, const attni_sdpa_problem *problem,
                            const attni_fused_plan *plan, char *scratch, int64_t *num_blocks) {
    const attni_interval chunks = attni_fused_dealt_chunks(problem, plan);
    attni_fused_engine engine = attni_fused_engine_of(context, problem, plan, chunks, scratch);
    *num_blocks = engine.num_items;
    if (engine.num_items == 0) {
        return ATTN_OK;
    }
    for (int32_t slot = 0; slot < plan->num_slots; ++slot) {
        attni_fused_forget_sights(&engine, slot);
    }
    if (plan->num_slots > 1) {
        /* From here on outputs are written, and a failure could not leave them untouched. */
        ATTNI_TRY(attni_start_threads(context));
    }
    ATTNI_TRY(attni_parallel_items(context, plan->num_slots, engine.num_items, attni_fused_run_item,
                                   &engine));
    if (engine.num_splits == 1) {
        return ATTN_OK;
    }
    return attni_parallel_items(context, plan->num_slots, plan->num_merges, attni_fused_merge_item,
                                &engine);
}
