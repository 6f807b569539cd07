/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_keys.c: blocks of keys and values: where they are read, copies of them where their layout
 * asks for it, and what is asked for before it is needed.
 */
#include "fused/fused_keys.h"

#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"
#include "fused/fused_sights.h"
#include "tensor/strided_copy.h"

/* Rows of value nearer than this do not fight for few lines of the first-level cache when a chunk
 * of their columns is read again and again. */
enum { NEAR_ROWS = 128 /* elements */, CACHE_LINE = 64 /* bytes */ };

/* Whether rows of value are read where they lie: whole vectors that cross no cache line. This may
 * depend on the address, since a copy holds the same numbers and its memory is there in any case.
 */
static bool lie_well(const attni_fused_engine *engine, const attni_source_rows *values) {
    const int64_t row_bytes = values->row_stride * (int64_t)sizeof(float);
    return values->col_stride == 1 &&
           engine->problem->value_dim % engine->kernels->tiles->lanes == 0 &&
           (uintptr_t)values->data % CACHE_LINE == 0 && row_bytes % CACHE_LINE == 0 &&
           values->row_stride > 0 && values->row_stride < NEAR_ROWS;
}

static const float *pack_rows(const attni_source_rows *rows, int64_t count, int64_t cols,
                              float *packed) {
    const attni_strided_matrix from = {rows->data, rows->row_stride, rows->col_stride};
    const attni_strided_matrix to = {(char *)packed, cols, 1};
    attni_copy_matrix(to, from, count, cols, sizeof(float));
    return packed;
}

/* Stream kernels read rows; for the others chunks of columns are count * value_columns apart. */
static const float *pack_values(const attni_fused_item *item, const attni_source_rows *values,
                                int64_t count, float *packed) {
    const attni_tile_kernels *tiles = item->engine->kernels->tiles;
    if (item->engine->plan->by_rows) {
        return pack_rows(values, count, item->engine->problem->value_dim, packed);
    }
    tiles->pack_values(packed, count * tiles->value_columns, values->data, values->row_stride,
                       values->col_stride, count, item->engine->problem->value_dim);
    return packed;
}

/* Only a layer has extra columns, and its keys are dense. */
static void take_extra_columns(attni_fused_item *item, bool packs_value, float *packed_value) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t count = problem->extra_cols;
    const int32_t columns = item->engine->kernels->tiles->value_columns;
    const attni_source_rows keys = attni_fused_keys_from(item, problem->src_len);
    const attni_source_rows values = attni_fused_values_from(item, problem->src_len);
    item->extra_key = keys.data;
    item->extra_value = packs_value ? pack_values(item, &values, count, packed_value) : values.data;
    item->extra_value_stride = packs_value ? count * columns : columns;
}

void attni_fused_take_block(attni_fused_item *item, attni_interval block) {
    const attni_fused_plan *plan = item->engine->plan;
    const attni_sdpa_problem *problem = item->engine->problem;
    const int32_t columns = item->engine->kernels->tiles->value_columns;
    const int64_t count = block.end - block.begin;
    const attni_source_rows keys = attni_fused_keys_from(item, block.begin);
    const attni_source_rows values = attni_fused_values_from(item, block.begin);
    const bool packs_value = plan->packs_value && !lie_well(item->engine, &values);
    float *packed_key = attni_floats_to(item->slot + plan->key_offset, 0);
    float *packed_value = attni_floats_to(item->slot + plan->value_offset, 0);
    item->block = block;
    item->key =
        plan->packs_key ? pack_rows(&keys, count, problem->head_dim, packed_key) : keys.data;
    item->key_stride = plan->packs_key ? problem->head_dim : keys.row_stride;
    item->value = packs_value ? pack_values(item, &values, count, packed_value) : values.data;
    item->value_key_stride = !packs_value    ? values.row_stride
                             : plan->by_rows ? problem->value_dim
                                             : columns;
    item->value_chunk_stride = packs_value ? count * columns : columns;
    if (problem->extra_cols > 0) {
        take_extra_columns(item, packs_value, packed_value + count * plan->sum_stride);
    }
}

/* ---- what is needed next ---- */

static attni_ahead all_of(const attni_source_rows *rows, int64_t count, int64_t cols) {
    return (attni_ahead){
        .row = rows->data,
        .stride = rows->row_stride * (int64_t)sizeof(float),
        .bytes = cols * (int64_t)sizeof(float),
        .num_rows = rows->col_stride == 1 ? count : 0,
        .rows_at_once = 1,
    };
}

static attni_ahead keys_of(const attni_fused_item *item, attni_interval keys) {
    const attni_source_rows rows = attni_fused_keys_from(item, keys.begin);
    return all_of(&rows, keys.end - keys.begin, item->engine->problem->head_dim);
}

static attni_ahead values_of(const attni_fused_item *item, attni_interval keys) {
    const attni_source_rows rows = attni_fused_values_from(item, keys.begin);
    return all_of(&rows, keys.end - keys.begin, item->engine->problem->value_dim);
}

static attni_ahead queries_of(const attni_fused_item *item, attni_interval rows) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_source_rows first =
        attni_operand_rows(problem, &problem->query, item->batch, item->first_head, rows.begin);
    return all_of(&first, rows.end - rows.begin, problem->head_dim);
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
    keys->end =
        attni_min(attni_fused_past_tile(plan, keys->begin), attni_min(keys->end, item->range.end));
    keys->end = attni_max(keys->end, keys->begin);
}

/* The item after this one in the same slot, if all take equally long. */
static void look_at_next_item(const attni_fused_item *item, attni_ahead ahead[ATTNI_NUM_AHEAD]) {
    const attni_fused_plan *plan = item->engine->plan;
    const int64_t index = item->index + plan->num_slots;
    if (index >= item->engine->num_items) {
        return;
    }
    attni_fused_item next = {.engine = item->engine, .kept_key = item->kept_key};
    const int64_t block = attni_fused_go_to_item(&next, index);
    attni_interval keys;
    attni_interval rows;
    find_start(&next, block, &keys, &rows);
    if (attni_fused_keeps_sights_of(&next, block)) {
        keys = item->first;
    }
    ahead[0] = keys_of(&next, keys);
    ahead[1] = values_of(&next, keys);
    ahead[2] = queries_of(&next, rows);
}

/* Rows in lanes score 4 keys at a time, and every panel does. */
static int64_t rows_at_once(const attni_fused_item *item, const attni_ahead *ahead) {
    int64_t rows = 0;
    for (int32_t i = 0; i < ATTNI_NUM_AHEAD; ++i) {
        rows += ahead[i].num_rows;
    }
    const int64_t times =
        item->num_panels * attni_max(1, (item->block.end - item->block.begin) / 4);
    return attni_divide_up(rows, times);
}

void attni_fused_look_ahead(attni_fused_item *item, attni_interval next) {
    attni_ahead *ahead = item->ahead;
    const bool has_next = next.begin < next.end;
    if (!item->engine->plan->looks_ahead) {
        return;
    }
    memset(ahead, 0, sizeof item->ahead);
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
