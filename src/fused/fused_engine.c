/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_engine.c: attention tile by tile, without a matrix of scores. For every block of query rows
 *
 *     for every block of keys that some row sees
 *         for every panel of rows
 *             scores  = scale * Q K^T, then softcap, ALiBi, masks
 *             weights = exp(scores - max), max the largest score of the row so far
 *             sums    = exp(old max - max) * sums + weights * V
 *     output = sums / sum of weights
 *
 * (Milakov and Gimelshein, 2018; Dao et al., 2022). Keys and values are read where they lie unless
 * their layout forbids it; what is copied, a block at a time, is where layouts end: kernels see
 * one.
 */
#include "fused/fused_engine.h"

#include "fused/fused_item.h"
#include "fused/fused_keys.h"
#include "fused/fused_lanes.h"
#include "fused/fused_merge.h"
#include "fused/fused_panel.h"
#include "fused/fused_rows.h"
#include "fused/fused_weights.h"

/* A panel has seen all its keys: its results are stored, or put aside. */
static void finish_panel(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys) {
    const attni_fused_engine *engine = item->engine;
    float factor[ATTNI_PANEL_LANES];
    panel->is_finished = true;
    if (engine->plan->num_splits > 1) {
        engine->steps->weigh(item, panel, keys, NULL);
        attni_fused_put_aside(item, panel);
        return;
    }
    attni_fused_finish_panel(item, panel, factor);
    if (engine->problem->weights.is_present) {
        attni_fused_store_weights(item, panel, keys, factor);
    }
    engine->steps->weigh(item, panel, keys, factor);
    attni_fused_store_output(item, panel);
}

/* What a panel has to do with the keys at hand, if anything. The extra columns are the last
 * split's.
 */
static void run_panel(attni_fused_item *item, attni_panel *panel) {
    const attni_fused_engine *engine = item->engine;
    attni_tile_keys keys = {
        .keys = attni_interval_between(attni_max(item->block.begin, panel->seen.begin),
                                       attni_min(item->block.end, panel->seen.end)),
        .is_last = panel->seen.end <= item->block.end && !panel->is_finished,
    };
    const bool has_extra = keys.is_last && item->split + 1 == engine->plan->num_splits;
    keys.count = keys.keys.end - keys.keys.begin;
    if (keys.count == 0) {
        keys.keys = (attni_interval){item->block.begin, item->block.begin};
    }
    keys.extra = has_extra ? engine->problem->extra_cols : 0;
    if (keys.count == 0 && !keys.is_last) {
        return;
    }
    engine->steps->score(item, panel, &keys);
    engine->steps->edit(item, panel, &keys);
    engine->steps->normalize(item, panel, &keys);
    if (keys.is_last) {
        finish_panel(item, panel, &keys);
    } else {
        engine->steps->weigh(item, panel, &keys, NULL);
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

static void run_block(attni_fused_item *item, int64_t block) {
    const int64_t key_block = item->engine->plan->key_block;
    attni_fused_place_panels(item, block);
    attni_fused_pack_queries(item);
    const attni_interval seen = seen_by_panels(item);
    int64_t begin = seen.begin;
    do {
        const int64_t end = attni_min(begin + key_block, seen.end);
        attni_fused_take_block(item, (attni_interval){begin, end});
        attni_fused_look_ahead(item, (attni_interval){end, attni_min(end + key_block, seen.end)});
        for (int64_t p = 0; p < item->num_panels; ++p) {
            run_panel(item, &item->panels[p]);
        }
        begin = end;
    } while (begin < seen.end);
}

static void run_item(void *data, int32_t slot, int64_t index) {
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
}

attn_status attni_fused_run(attn_context *context, const attni_sdpa_problem *problem,
                            const attni_fused_plan *plan, char *scratch, int64_t *num_blocks) {
    attni_fused_engine engine = {
        .problem = problem,
        .plan = plan,
        .kernels = attni_context_kernels(context),
        .steps = plan->by_rows ? &attni_steps_by_rows : &attni_steps_in_lanes,
        .scratch = scratch,
    };
    *num_blocks = plan->num_items;
    if (plan->num_items == 0) {
        return ATTN_OK;
    }
    if (plan->num_slots > 1) {
        /* From here on outputs are written, and a failure could not leave them untouched. */
        ATTNI_TRY(attni_start_threads(context));
    }
    ATTNI_TRY(attni_parallel_items(context, plan->num_slots, plan->num_items, run_item, &engine));
    if (plan->num_merges == 0) {
        return ATTN_OK;
    }
    return attni_parallel_items(context, plan->num_slots, plan->num_merges, attni_fused_merge_item,
                                &engine);
}
