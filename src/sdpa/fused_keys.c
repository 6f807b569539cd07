/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_keys.c: blocks of keys and values: where they are read, copies of them where their layout
 * asks for it, and what is asked for before it is needed.
 */
#include <string.h>

#include "sdpa/engine_fused.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

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
    engine->kernels->tiles->pack_values(packed, count * engine->kernels->tiles->value_columns,
                                        data, strides[0], strides[1], count, problem->value_dim);
    return packed;
}

/* Makes `block` the keys at hand. */
void attni_fused_take_block(attni_fused_item *item, attni_interval block) {
    const attni_fused_plan *plan = item->engine->plan;
    const attni_sdpa_problem *problem = item->engine->problem;
    const int32_t columns = item->engine->kernels->tiles->value_columns;
    const int64_t count = block.end - block.begin;
    float *packed_key = attni_floats_to(item->slot + plan->key_offset, 0);
    float *packed_value = attni_floats_to(item->slot + plan->value_offset, 0);
    item->block = block;
    item->key = take_keys(item, block.begin, count, packed_key);
    item->value = take_values(item, block.begin, count, packed_value);
    item->key_stride =
        plan->packs_key ? problem->head_dim : problem->key.strides[problem->batch_rank + 1];
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

/* ---- what is needed next ---- */

/* Rows [first, first + count) of a head of an operand. */
static attni_ahead rows_of(const attni_fused_item *item, const attni_operand *operand, int64_t head,
                           attni_interval rows, int64_t cols) {
    const int64_t *strides = &operand->strides[item->engine->problem->batch_rank + 1];
    const int64_t offset =
        attni_fused_offset(item, operand->strides, head) + rows.begin * strides[0];
    return (attni_ahead){
        .row = attni_advance(operand->data, offset * (int64_t)sizeof(float)),
        .stride = strides[0] * (int64_t)sizeof(float),
        .bytes = cols * (int64_t)sizeof(float),
        .num_rows = strides[1] == 1 ? rows.end - rows.begin : 0,
        .rows_at_once = 1,
    };
}

static attni_ahead keys_of(const attni_fused_item *item, attni_interval keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    return rows_of(item, &problem->key, item->first_head / problem->key_group, keys,
                   problem->head_dim);
}

static attni_ahead values_of(const attni_fused_item *item, attni_interval keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    return rows_of(item, &problem->value, item->first_head / problem->value_group, keys,
                   problem->value_dim);
}

/* The first block of keys of an item, and the rows of its first head. */
static void find_start(attni_fused_item *item, int64_t block, attni_interval *keys,
                       attni_interval *rows) {
    const attni_fused_plan *plan = item->engine->plan;
    *rows = attni_fused_block_rows(item->engine, block);
    rows->begin /= plan->group;
    rows->end = attni_divide_up(rows->end, plan->group);
    *keys = attni_rows_union(&item->visibility, rows->begin, rows->end);
    keys->begin = attni_max(keys->begin, item->range.begin);
    keys->end = attni_min(keys->begin + plan->key_block, attni_min(keys->end, item->range.end));
    keys->end = attni_max(keys->end, keys->begin);
}

/* The item after this one in the same slot, if all take equally long. */
static void look_at_next_item(const attni_fused_item *item, attni_ahead ahead[ATTNI_NUM_AHEAD]) {
    const attni_fused_plan *plan = item->engine->plan;
    const int64_t index = item->index + plan->num_slots;
    if (index >= plan->num_items) {
        return;
    }
    attni_fused_item next = {.engine = item->engine};
    const int64_t block = attni_fused_go_to_item(&next, index);
    attni_interval keys;
    attni_interval rows;
    find_start(&next, block, &keys, &rows);
    ahead[0] = keys_of(&next, keys);
    ahead[1] = values_of(&next, keys);
    ahead[2] = rows_of(&next, &item->engine->problem->query, next.first_head, rows,
                       item->engine->problem->head_dim);
}

/* Rows in lanes score 4 keys at a time, and every panel does. */
static int64_t rows_at_once(const attni_fused_item *item, const attni_ahead *ahead) {
    int64_t rows = 0;
    for (int32_t i = 0; i < ATTNI_NUM_AHEAD; ++i) {
        rows += ahead[i].num_rows;
    }
    const int64_t times = item->num_panels * attni_max(1, (item->block.end - item->block.begin) / 4);
    return attni_divide_up(rows, times);
}

void attni_fused_look_ahead(attni_fused_item *item, attni_interval next) {
    attni_ahead *ahead = item->ahead;
    const bool has_next = next.begin < next.end;
    memset(ahead, 0, sizeof item->ahead);
    if (item->engine->plan->by_rows) {
        return; /* which streams instead: see kernels/stream_kernels.h */
    }
    if (has_next) {
        ahead[0] = keys_of(item, next);
        ahead[1] = values_of(item, next);
    } else {
        look_at_next_item(item, ahead);
    }
    const int64_t at_once = rows_at_once(item, ahead);
    for (int32_t i = 0; i < ATTNI_NUM_AHEAD; ++i) {
        ahead[i].rows_at_once = at_once;
    }
}
