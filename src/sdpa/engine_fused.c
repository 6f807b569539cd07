/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_fused.c: attention tile by tile, without a matrix of scores. For every block of query rows
 *
 *     for every block of keys that some row sees
 *         for every panel of rows
 *             scores  = scale * Q K^T, then softcap, ALiBi, masks
 *             weights = exp(scores - max), max the largest score of the row so far
 *             sums    = exp(old max - max) * sums + weights * V
 *     output = sums / sum of weights
 *
 * (Milakov and Gimelshein, 2018; Dao et al., 2022). Keys and values are read where they lie unless
 * their layout forbids it; what is copied, a block at a time, is where layouts end: kernels see one.
 */
#include "sdpa/engine_fused.h"

#include <string.h>

#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* Keys whose values are multiplied at a time, so that a chunk of their columns stays in the
 * first-level cache for all rows of a panel. */
enum { VALUE_KEYS = 256 };

static const float ones[ATTNI_PANEL_LANES] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
};

int64_t attni_fused_offset(const attni_fused_item *item, const int64_t *strides, int64_t head) {
    const attni_sdpa_problem *problem = item->engine->problem;
    return attni_offset_of(item->batch, problem->batch_rank, problem->batch_shape, strides) +
           head * strides[problem->batch_rank];
}

static int64_t batch_option(const attni_fused_item *item, const attni_operand *operand,
                            int64_t absent) {
    return operand->is_present
               ? attni_read_int64(operand->data, attni_fused_offset(item, operand->strides, 0))
               : absent;
}

static void start_batch(attni_fused_item *item, int64_t batch) {
    const attni_sdpa_problem *problem = item->engine->problem;
    item->batch = batch;
    item->visibility = (attni_visibility){
        .is_causal = problem->is_causal,
        .window_left = problem->window_left,
        .window_right = problem->window_right,
        .query_offset = batch_option(item, &problem->query_offset, 0),
        .key_length = batch_option(item, &problem->key_lengths, problem->src_len),
    };
}

/* ---- keys and values ---- */

/* Rows of key from `first` on, packed to `packed` where the plan says so. */
static const float *take_keys(const attni_fused_item *item, int64_t first, int64_t count,
                              float *packed) {
    const attni_fused_engine *engine = item->engine;
    const attni_sdpa_problem *problem = engine->problem;
    const attni_operand *key = &problem->key;
    const int64_t *strides = &key->strides[problem->batch_rank + 1];
    const int64_t offset =
        attni_fused_offset(item, key->strides, item->first_head / problem->key_group) +
        first * strides[0];
    char *data = attni_advance(key->data, offset * (int64_t)sizeof(float));
    if (!engine->plan->packs_key) {
        return (const float *)(const void *)data;
    }
    const attni_strided_matrix from = {data, strides[0], strides[1]};
    const attni_strided_matrix to = {(char *)packed, problem->head_dim, 1};
    attni_copy_matrix(to, from, count, problem->head_dim, sizeof(float));
    return packed;
}

/* Likewise for value; packed chunks are count * value_columns apart. */
static const float *take_values(const attni_fused_item *item, int64_t first, int64_t count,
                                float *packed) {
    const attni_fused_engine *engine = item->engine;
    const attni_sdpa_problem *problem = engine->problem;
    const attni_operand *value = &problem->value;
    const int64_t *strides = &value->strides[problem->batch_rank + 1];
    const int64_t offset =
        attni_fused_offset(item, value->strides, item->first_head / problem->value_group) +
        first * strides[0];
    const float *data = attni_floats(value->data, offset);
    if (!engine->plan->packs_value) {
        return data;
    }
    engine->tiles->pack_values(packed, count * engine->tiles->value_columns, data, strides[0],
                               strides[1], count, problem->value_dim);
    return packed;
}

/* `count` rows of an operand from row `first` on, to be asked for while the keys at hand are scored:
 * all of them if that is done 4 keys at a time, as for most panels. */
static attni_ahead rows_ahead(const attni_fused_item *item, const attni_operand *operand,
                              int64_t head, int64_t first, int64_t count, int64_t cols) {
    const int64_t *strides = &operand->strides[item->engine->problem->batch_rank + 1];
    const int64_t offset = attni_fused_offset(item, operand->strides, head) + first * strides[0];
    return (attni_ahead){
        .row = attni_advance(operand->data, offset * (int64_t)sizeof(float)),
        .stride = strides[0] * (int64_t)sizeof(float),
        .bytes = cols * (int64_t)sizeof(float),
        .num_rows = strides[1] == 1 ? count : 0,
        .rows_at_once = attni_divide_up(8, item->num_panels),
    };
}

static void look_beyond(attni_fused_item *item, attni_interval next) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t count = next.end - next.begin;
    item->ahead[0] = rows_ahead(item, &problem->key, item->first_head / problem->key_group,
                                next.begin, count, problem->head_dim);
    item->ahead[1] = rows_ahead(item, &problem->value, item->first_head / problem->value_group,
                                next.begin, count, problem->value_dim);
}

/* Makes `block` the keys at hand. */
static void start_key_block(attni_fused_item *item, attni_interval block, char *slot) {
    const attni_fused_plan *plan = item->engine->plan;
    const attni_sdpa_problem *problem = item->engine->problem;
    const int32_t columns = item->engine->tiles->value_columns;
    const int64_t count = block.end - block.begin;
    float *packed_key = attni_floats_to(slot + plan->key_offset, 0);
    float *packed_value = attni_floats_to(slot + plan->value_offset, 0);
    item->block = block;
    item->key = take_keys(item, block.begin, count, packed_key);
    item->value = take_values(item, block.begin, count, packed_value);
    item->key_stride = plan->packs_key ? problem->head_dim : problem->key.strides[problem->batch_rank + 1];
    item->value_key_stride =
        plan->packs_value ? columns : problem->value.strides[problem->batch_rank + 1];
    item->value_chunk_stride = plan->packs_value ? count * columns : columns;
    item->extra_key = NULL;
    item->extra_value = NULL;
    if (problem->extra_cols > 0) {
        item->extra_key = take_keys(item, problem->src_len, problem->extra_cols,
                                    packed_key + count * problem->head_dim);
        item->extra_value = take_values(item, problem->src_len, problem->extra_cols,
                                        packed_value + count * plan->sum_stride);
        item->extra_value_stride = plan->packs_value ? problem->extra_cols * columns : columns;
    }
}

/* ---- one tile ---- */

static void score_tile(attni_fused_item *item, attni_panel *panel,
                       const attni_tile_keys *keys) {
    const attni_tile_kernels *tiles = item->engine->tiles;
    const int64_t head_dim = item->engine->problem->head_dim;
    memcpy(panel->state.old_max, panel->state.max, sizeof panel->state.max);
    tiles->score(item->tile, panel->vectors, panel->queries, head_dim,
                 item->key + (keys->keys.begin - item->block.begin) * item->key_stride,
                 item->key_stride, keys->count, panel->state.max, attni_fused_ahead(item));
    if (keys->extra > 0) {
        tiles->score(item->tile + keys->count * panel->width, panel->vectors, panel->queries,
                     head_dim, item->extra_key, item->key_stride, keys->extra, panel->state.max,
                     attni_fused_ahead(item));
    }
}

static void normalize_tile(const attni_fused_item *item, attni_panel *panel,
                           const attni_tile_keys *keys) {
    const attni_fused_engine *engine = item->engine;
    const int64_t count = keys->count + keys->extra;
    if (engine->problem->normalizer == ATTN_NORMALIZER_SOFTMAX) {
        engine->tiles->exponentiate(item->tile, panel->vectors, count, &panel->state);
        return;
    }
    if (engine->problem->normalizer == ATTN_NORMALIZER_SIGMOID) {
        engine->rows->sigmoid(item->tile, count * panel->width);
    }
    engine->tiles->add_magnitudes(item->tile, panel->vectors, count, panel->state.sum);
}

/* ---- weighted values ---- */

/* Rows [first, first + count) of the tile times as many rows of part->values, added to the panel's
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
    item->engine->tiles->weigh_values(part);
    panel->is_started = true;
    part->rescale = ones;
}

/* The source keys of a tile; outputs are stored with the last of them if `outputs` is not NULL. */
static void weigh_keys(const attni_fused_item *item, attni_panel *panel,
                       const attni_tile_keys *keys, attni_value_tile *part, float *const *outputs) {
    const float *values =
        item->value + (keys->keys.begin - item->block.begin) * item->value_key_stride;
    for (int64_t first = 0; first < keys->count; first += VALUE_KEYS) {
        const int64_t count = attni_min(VALUE_KEYS, keys->count - first);
        part->values = values + first * item->value_key_stride;
        part->outputs = first + count == keys->count ? outputs : NULL;
        weigh_part(item, panel, part, first, count, keys->keys.begin + first);
    }
}

static bool are_finite(const attni_fused_item *item, attni_interval keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_operand *value = &problem->value;
    const int64_t *strides = &value->strides[problem->batch_rank + 1];
    if (keys.begin >= keys.end) {
        return true;
    }
    const int64_t offset =
        attni_fused_offset(item, value->strides, item->first_head / problem->value_group) +
        keys.begin * strides[0];
    return item->engine->tiles->are_finite(attni_floats(value->data, offset), strides[0],
                                           strides[1], keys.end - keys.begin, problem->value_dim);
}

/* Whether a weight of 0 keeps every value of the tile out of the rows that must not see it: those
 * that not all rows see have to be finite. */
static bool zeros_hide(const attni_fused_item *item, const attni_panel *panel,
                       const attni_tile_keys *keys) {
    const attni_interval all = keys->keys;
    const attni_interval common = panel->common;
    if (common.begin >= common.end) {
        return are_finite(item, all);
    }
    return are_finite(item, (attni_interval){all.begin, attni_min(all.end, common.begin)}) &&
           are_finite(item, (attni_interval){attni_max(all.begin, common.end), all.end});
}

/* sums of one row += weights * values of the keys [begin, end), one by one. */
static void add_own_values(const attni_fused_item *item, const attni_panel *panel,
                           const attni_tile_keys *keys, int32_t lane, attni_interval own) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_operand *value = &problem->value;
    const int64_t *strides = &value->strides[problem->batch_rank + 1];
    const int64_t first =
        attni_fused_offset(item, value->strides, item->first_head / problem->value_group);
    for (int64_t key = own.begin; key < own.end; ++key) {
        const float weight = item->tile[(key - keys->keys.begin) * panel->width + lane];
        item->engine->rows->accumulate(panel->sums + lane * item->engine->plan->sum_stride,
                                       attni_floats(value->data, first + key * strides[0]),
                                       strides[1], problem->value_dim, weight);
    }
}

/* As weigh_keys, where some value that not all rows see is not finite: what all rows see by a
 * product, the rest row by row. */
static void weigh_keys_apart(const attni_fused_item *item, attni_panel *panel,
                             const attni_tile_keys *keys, attni_value_tile *part) {
    const attni_interval all = keys->keys;
    const attni_interval common =
        attni_interval_between(attni_max(all.begin, panel->common.begin),
                               attni_min(all.end, panel->common.end));
    const int64_t skipped = common.begin < common.end ? common.begin - all.begin : 0;
    part->values = item->value + (all.begin + skipped - item->block.begin) * item->value_key_stride;
    part->outputs = NULL;
    weigh_part(item, panel, part, skipped, common.end - common.begin, ATTNI_NO_KEY);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const int64_t begin = attni_max(all.begin, panel->first_key[lane]);
        const int64_t end = attni_min(all.end, panel->past_key[lane]);
        const int64_t middle = common.begin < common.end ? common.begin : end;
        const int64_t rest = common.begin < common.end ? common.end : end;
        add_own_values(item, panel, keys, lane, (attni_interval){begin, attni_min(middle, end)});
        add_own_values(item, panel, keys, lane, (attni_interval){attni_max(rest, begin), end});
    }
}

/* Where the panel's rows of output go once they are complete. */
static void find_outputs(const attni_fused_item *item, const attni_panel *panel,
                         float *outputs[ATTNI_PANEL_LANES]) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_operand *output = &problem->output;
    const int64_t first = attni_fused_offset(item, output->strides, 0);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const int64_t offset = first +
                               panel->head[lane] * output->strides[problem->batch_rank] +
                               panel->row[lane] * output->strides[problem->batch_rank + 1];
        outputs[lane] = item->engine->plan->stages_output
                            ? panel->sums + lane * item->engine->plan->sum_stride
                            : attni_floats_to(output->data, offset);
    }
}

static void weigh_tile(const attni_fused_item *item, attni_panel *panel,
                       const attni_tile_keys *keys, const float *factor) {
    const attni_fused_engine *engine = item->engine;
    float *outputs[ATTNI_PANEL_LANES];
    if (keys->is_last) {
        find_outputs(item, panel, outputs);
    }
    attni_value_tile part = {
        .vectors = panel->vectors,
        .num_rows = panel->count,
        .key_stride = item->value_key_stride,
        .chunk_stride = item->value_chunk_stride,
        .value_dim = engine->problem->value_dim,
        .rescale = panel->state.rescale,
        .sums = panel->sums,
        .sum_stride = engine->plan->sum_stride,
        .factor = factor,
    };
    const bool is_apart = !zeros_hide(item, panel, keys);
    const bool ends_here = keys->is_last && !is_apart && keys->extra == 0;
    if (is_apart) {
        weigh_keys_apart(item, panel, keys, &part);
    } else {
        weigh_keys(item, panel, keys, &part, ends_here ? outputs : NULL);
    }
    if (keys->is_last && !ends_here) {
        part.values = item->extra_value;
        part.chunk_stride = item->extra_value_stride;
        part.outputs = outputs;
        weigh_part(item, panel, &part, keys->count, keys->extra, ATTNI_NO_KEY);
    }
}

/* ---- items ---- */

/* What a panel has to do with the keys at hand, if anything. */
static void run_panel(attni_fused_item *item, attni_panel *panel) {
    const attni_sdpa_problem *problem = item->engine->problem;
    attni_tile_keys keys = {
        .keys = attni_interval_between(attni_max(item->block.begin, panel->seen.begin),
                                       attni_min(item->block.end, panel->seen.end)),
        .is_last = panel->seen.end <= item->block.end && !panel->is_finished,
    };
    keys.count = keys.keys.end - keys.keys.begin;
    keys.extra = keys.is_last ? problem->extra_cols : 0;
    if (keys.count == 0 && !keys.is_last) {
        return;
    }
    float factor[ATTNI_PANEL_LANES];
    score_tile(item, panel, &keys);
    attni_fused_edit_scores(item, panel, &keys);
    normalize_tile(item, panel, &keys);
    if (keys.is_last) {
        attni_fused_finish_panel(item, panel, factor);
    }
    if (problem->weights.is_present) {
        attni_fused_store_weights(item, panel, &keys, factor);
    }
    weigh_tile(item, panel, &keys, factor);
    if (keys.is_last) {
        attni_fused_store_output(item, panel);
        panel->is_finished = true;
    }
}

static void run_group_block(attni_fused_item *item, int64_t group, int64_t block, char *slot) {
    const attni_fused_plan *plan = item->engine->plan;
    item->first_head = group * plan->group;
    attni_fused_start_panels(item, block);
    attni_interval seen = item->panels[0].seen;
    for (int64_t p = 1; p < item->num_panels; ++p) {
        const attni_interval own = item->panels[p].seen;
        const bool is_first = seen.begin == seen.end;
        if (own.begin < own.end) {
            seen.begin = is_first ? own.begin : attni_min(seen.begin, own.begin);
            seen.end = is_first ? own.end : attni_max(seen.end, own.end);
        }
    }
    int64_t begin = seen.begin;
    do {
        const int64_t end = attni_min(begin + plan->key_block, seen.end);
        start_key_block(item, (attni_interval){begin, end}, slot);
        look_beyond(item, (attni_interval){end, attni_min(end + plan->key_block, seen.end)});
        for (int64_t p = 0; p < item->num_panels; ++p) {
            run_panel(item, &item->panels[p]);
        }
        begin = end;
    } while (begin < seen.end);
}

/* Items are ordered by what they cost, the largest first, so that none is left for the end: of
 * causal attention the last rows see most keys. */
static void run_item(void *data, int32_t slot_index, int64_t index) {
    const attni_fused_engine *engine = data;
    const attni_fused_plan *plan = engine->plan;
    char *slot = engine->scratch + plan->slots_offset + (size_t)slot_index * plan->slot_bytes;
    const int64_t per_block = plan->num_items / plan->num_blocks;
    const int64_t block = plan->num_blocks - 1 - index / per_block;
    const int64_t group = plan->averages ? 0 : index % per_block % plan->num_groups;
    const int64_t end = plan->averages ? plan->num_groups : group + 1;
    attni_fused_item item = {
        .engine = engine,
        .panels = (attni_panel *)(void *)(slot + plan->panels_offset),
        .tile = attni_floats_to(slot + plan->tile_offset, 0),
        .queries = attni_floats_to(slot + plan->queries_offset, 0),
        .sums = attni_floats_to(slot + plan->sums_offset, 0),
        .staging = slot + plan->staging_offset,
    };
    start_batch(&item, plan->averages ? index % per_block : index % per_block / plan->num_groups);
    if (plan->averages) {
        attni_fused_clear_averages(&item, block);
    }
    for (int64_t at = group; at < end; ++at) {
        run_group_block(&item, at, block, slot);
    }
}

attn_status attni_engine_fused_run(attn_context *context, const attni_sdpa_problem *problem,
                                   const attni_sdpa_plan *plan, char *scratch,
                                   int64_t *num_blocks) {
    const attni_kernel_set *kernels = attni_context_kernels(context);
    attni_fused_engine engine = {
        .problem = problem,
        .plan = &plan->fused,
        .rows = kernels->float32,
        .tiles = kernels->tiles,
        .lanes = kernels->lanes,
        .scratch = scratch,
    };
    *num_blocks = plan->fused.num_items;
    if (plan->fused.num_items == 0) {
        return ATTN_OK;
    }
    if (plan->fused.num_slots > 1) {
        /* From here on outputs are written, and a failure could not leave them untouched. */
        ATTNI_TRY(attni_start_threads(context));
    }
    return attni_parallel_items(context, plan->fused.num_slots, plan->fused.num_items, run_item,
                                &engine);
}
