/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_keys.c: blocks of keys and values: where they are read, copies of them where their layout
 * asks for it, and what is asked for before it is needed.
 */
#include "fused/fused_keys.h"

#include <string.h>

#include "base/checked_size.h"
#include "fused/fused_item.h"
#include "fused/fused_panel.h"
#include "fused/fused_parts.h"
#include "fused/fused_sights.h"
#include "problem/quantized_rows.h"
#include "problem/row_list.h"
#include "tensor/strided_copy.h"

/* Rows of value nearer than this do not fight for few lines of the first-level cache when a chunk
 * of their columns is read again and again. */
enum { NEAR_ROWS = 128 /* elements */, CACHE_LINE = 64 /* bytes */ };

/* Rows in short runs are asked for this many rows before they are copied: they lie anywhere, so the
 * processor cannot know. */
enum { SCATTERED_AHEAD = 12 };

/* Whether rows of value are read where they lie: whole vectors that cross no cache line. This may
 * depend on the address, since a copy holds the same numbers and its memory is there in any case.
 */
static bool lie_well(const attni_fused_engine *engine, const attni_source_rows *values) {
    const int64_t row_bytes = values->row_stride * (int64_t)sizeof(float);
    return engine->problem->value.dtype == ATTN_DTYPE_FLOAT32 && values->col_stride == 1 &&
           engine->problem->value_dim % engine->kernels->tiles->lanes == 0 &&
           (uintptr_t)values->data % CACHE_LINE == 0 && row_bytes % CACHE_LINE == 0 &&
           values->row_stride > 0 && values->row_stride < NEAR_ROWS;
}

/* ---- copies: run by run of rows that lie side by side ---- */

/* attni_fused_keys_from or attni_fused_values_from. */
typedef attni_source_rows rows_source(const attni_fused_item *item, int64_t first);

/* attni_list_keys or attni_list_values. */
typedef void rows_lister(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                         int64_t head, int64_t first, int64_t count, const void **list);

static void ask_for_row(const attni_source_rows *rows, int64_t bytes) {
    for (int64_t byte = 0; byte < bytes && rows->col_stride == 1; byte += CACHE_LINE) {
        __builtin_prefetch((const char *)rows->data + byte);
    }
}

/* Rows as kernels read them, `stride` elements apart: widened, or as they are where `bytes` of an
 * element are those that are stored. */
static const void *pack_rows(const attni_fused_item *item, rows_source *source,
                             const attni_operand *operand, int64_t first, int64_t count,
                             const attni_storage_kernels *storage, int64_t cols, int64_t stride,
                             int64_t bytes, char *packed) {
    for (int64_t done = 0; done < count;) {
        const attni_source_rows rows = source(item, first + done);
        const int64_t of_run = attni_min(rows.count, count - done);
        char *to = attni_advance(packed, done * stride * bytes);
        if (of_run < SCATTERED_AHEAD && done + SCATTERED_AHEAD < count) {
            const attni_source_rows soon = source(item, first + done + SCATTERED_AHEAD);
            ask_for_row(&soon, cols * operand->element_bytes);
        }
        if (operand->element_bytes == bytes) {
            const attni_strided_matrix from = {rows.data, rows.row_stride, rows.col_stride};
            attni_copy_matrix((attni_strided_matrix){to, stride, 1}, from, of_run, cols,
                              (size_t)bytes);
        } else {
            for (int64_t r = 0; r < of_run; ++r) {
                storage->widen(
                    attni_floats_to(to, r * stride),
                    attni_element(rows.data, r * rows.row_stride, operand->element_bytes),
                    rows.col_stride, cols);
            }
        }
        done += of_run;
    }
    return packed;
}

/* An odd number of features is stored with a 0 behind it. */
static const void *pack_keys(const attni_fused_item *item, int64_t first, int64_t count,
                             char *packed) {
    const attni_fused_engine *engine = item->engine;
    const attni_fused_plan *plan = engine->plan;
    const int64_t head_dim = engine->problem->head_dim;
    if (attni_is_quantized(engine->problem->key.dtype) && !plan->folds_key_scales) {
        attni_dequantize_keys(engine->kernels, engine->problem, &item->sequence, item->first_head,
                              first, count, attni_floats_to(packed, 0), head_dim);
        return packed;
    }
    if (plan->key_stride != head_dim) {
        memset(packed, 0, (size_t)(count * plan->key_stride * plan->key_bytes));
    }
    return pack_rows(item, attni_fused_keys_from, &engine->problem->key, first, count,
                     engine->key_storage, head_dim, plan->key_stride, plan->key_bytes, packed);
}

/* What is hidden from all panels is not copied. */
static const void *pack_block_keys(const attni_fused_item *item) {
    const attni_fused_plan *plan = item->engine->plan;
    char *packed = item->slot + plan->key_offset;
    for (int64_t i = 0; i < item->num_shown; ++i) {
        const attni_interval part = item->shown[i];
        const int64_t before = (part.begin - item->block.begin) * plan->key_stride;
        pack_keys(item, part.begin, part.end - part.begin, packed + before * plan->key_bytes);
    }
    return packed;
}

/* The block's values as numbers: what stream kernels read, and what is packed for the others. */
static void dequantize_values(attni_fused_item *item) {
    const attni_fused_engine *engine = item->engine;
    const attni_fused_plan *plan = engine->plan;
    const int64_t value_dim = engine->problem->value_dim;
    if (!attni_is_quantized(engine->problem->value.dtype) || plan->folds_value_scales) {
        return;
    }
    const size_t offset = plan->by_rows ? plan->value_offset : plan->gathered_offset;
    float *to = attni_floats_to(item->slot + offset, 0);
    for (int64_t i = 0; i < item->num_shown; ++i) {
        const attni_interval part = item->shown[i];
        attni_dequantize_values(engine->kernels, engine->problem, &item->sequence, item->first_head,
                                part.begin, part.end - part.begin,
                                to + (part.begin - item->block.begin) * value_dim, value_dim);
    }
    item->dequantized = to;
}

/* Stream kernels read rows; for the others chunks of columns are chunk_stride apart. */
static const void *pack_values(const attni_fused_item *item, int64_t first, int64_t count,
                               int64_t chunk_stride, char *packed) {
    const attni_fused_engine *engine = item->engine;
    const int64_t value_dim = engine->problem->value_dim;
    const int64_t columns = engine->kernels->tiles->value_columns;
    if (engine->plan->by_rows) {
        return pack_rows(item, attni_fused_values_from, &engine->problem->value, first, count,
                         engine->value_storage, value_dim, value_dim, engine->plan->value_bytes,
                         packed);
    }
    for (int64_t done = 0; done < count;) {
        const attni_source_rows rows = attni_fused_read_values(item, first + done);
        const int64_t of_run = attni_min(rows.count, count - done);
        engine->value_storage->pack_values(attni_floats_to(packed, done * columns), chunk_stride,
                                           columns, rows.data, rows.row_stride, rows.col_stride,
                                           of_run, value_dim);
        done += of_run;
    }
    return packed;
}

static const void *pack_block_values(const attni_fused_item *item) {
    const attni_fused_plan *plan = item->engine->plan;
    const attni_interval block = item->block;
    const int64_t columns = item->engine->kernels->tiles->value_columns;
    const int64_t row = plan->by_rows ? item->engine->problem->value_dim * plan->value_bytes
                                      : columns * (int64_t)sizeof(float);
    char *packed = item->slot + plan->value_offset;
    const bool is_there = item->dequantized != NULL && plan->by_rows;
    for (int64_t i = 0; i < item->num_shown && !is_there; ++i) {
        const attni_interval part = item->shown[i];
        pack_values(item, part.begin, part.end - part.begin, (block.end - block.begin) * columns,
                    packed + (part.begin - block.begin) * row);
    }
    return packed;
}

/* ---- the keys at hand ---- */

/* Their rows are float32 and dense, so that all kernels read them where they lie, but for values
 * whose columns do not fill vectors: these are packed behind the `count` values at hand. */
static void take_extra_columns(attni_fused_item *item, int64_t count) {
    const attni_fused_engine *engine = item->engine;
    const attni_fused_plan *plan = engine->plan;
    const attni_sdpa_problem *problem = engine->problem;
    const int64_t columns = engine->kernels->tiles->value_columns;
    const attni_source_rows keys = attni_extra_keys(problem, item->batch, item->first_head);
    const attni_source_rows values = attni_extra_values(problem, item->batch, item->first_head);
    item->extra_key = keys.data;
    item->extra_key_stride = keys.row_stride;
    item->extra_value = values.data;
    item->extra_value_key_stride = values.row_stride;
    item->extra_value_stride = columns;
    if (plan->packs_value && !plan->by_rows) {
        float *packed = attni_floats_to(item->slot + plan->value_offset, count * plan->sum_stride);
        item->extra_value = packed;
        item->extra_value_key_stride = columns;
        item->extra_value_stride = problem->extra_cols * columns;
        engine->float32_storage->pack_values(packed, item->extra_value_stride, columns, values.data,
                                             values.row_stride, values.col_stride,
                                             problem->extra_cols, problem->value_dim);
    }
}

/* Some of the block's values in pairs of keys. Those in pages are gathered before, since a page may
 * end within a pair. */
static void pack_value_pairs(const attni_fused_item *item, attni_interval part, uint32_t *packed) {
    const attni_fused_engine *engine = item->engine;
    const int64_t value_dim = engine->problem->value_dim;
    const int64_t count = part.end - part.begin;
    attni_source_rows values = attni_fused_values_from(item, part.begin);
    if (values.count < count) {
        char *gathered = item->slot + engine->plan->gathered_offset;
        pack_rows(item, attni_fused_values_from, &engine->problem->value, part.begin, count,
                  engine->value_storage, value_dim, value_dim, engine->value_storage->element_bytes,
                  gathered);
        values = (attni_source_rows){gathered, value_dim, 1, count};
    }
    engine->pairs->pack_values(packed, item->value_chunk_stride, item->value_key_stride,
                               values.data, values.row_stride, values.col_stride, count,
                               (int32_t)(part.begin % 2), value_dim);
}

/* The values of a block in pairs of keys, an even one and the next; what a pair has of another
 * block, or of a key that no panel sees, is 0. */
static void take_value_pairs(attni_fused_item *item) {
    const attni_interval block = item->block;
    const int64_t columns = item->engine->kernels->tiles->value_columns;
    const int64_t pairs = attni_divide_up(block.end, 2) - block.begin / 2;
    uint32_t *packed = (uint32_t *)(void *)(item->slot + item->engine->plan->value_offset);
    item->value = packed;
    item->value_key_stride = columns;
    item->value_chunk_stride = pairs * columns;
    for (int64_t i = 0; i < item->num_shown; ++i) {
        const attni_interval part = item->shown[i];
        pack_value_pairs(item, part, packed + (part.begin / 2 - block.begin / 2) * columns);
    }
}

/* Where each of the block's rows is, and of those behind them that are read next; the last one
 * stands for what there is not. By rows an item has one panel. */
static const void **list_rows(const attni_fused_item *item, rows_lister *lister,
                              const void **list) {
    const int64_t count = item->block.end - item->block.begin;
    const int64_t wanted = count + ATTNI_STREAM_AHEAD;
    const int64_t listed = attni_min(wanted, item->panels->seen.end - item->block.begin);
    lister(item->engine->problem, &item->sequence, item->first_head, item->block.begin, listed,
           list);
    for (int64_t i = listed; i < wanted && listed > 0; ++i) {
        list[i] = list[listed - 1];
    }
    return list;
}

static void list_block(attni_fused_item *item, bool packs_value) {
    const attni_fused_plan *plan = item->engine->plan;
    const void **keys = (const void **)(void *)(item->slot + plan->lists_offset);
    const void **values = keys + plan->tile_keys + ATTNI_STREAM_AHEAD;
    item->key_list = plan->packs_key ? NULL : list_rows(item, attni_list_keys, keys);
    item->value_list = packs_value ? NULL : list_rows(item, attni_list_values, values);
}

void attni_fused_take_block(attni_fused_item *item, attni_interval block) {
    const attni_fused_plan *plan = item->engine->plan;
    const attni_sdpa_problem *problem = item->engine->problem;
    const int32_t columns = item->engine->kernels->tiles->value_columns;
    const int64_t count = block.end - block.begin;
    const attni_source_rows keys = attni_fused_keys_from(item, block.begin);
    const attni_source_rows values = attni_fused_values_from(item, block.begin);
    const bool packs_value =
        plan->packs_value && (values.count < count || !lie_well(item->engine, &values));
    item->block = block;
    attni_fused_find_shown(item);
    dequantize_values(item);
    item->key = plan->packs_key ? pack_block_keys(item) : keys.data;
    item->key_stride = plan->packs_key ? plan->key_stride : keys.row_stride;
    if (plan->by_pairs) {
        take_value_pairs(item);
        return;
    }
    item->value = packs_value ? pack_block_values(item) : values.data;
    item->value_key_stride = !packs_value    ? values.row_stride
                             : plan->by_rows ? problem->value_dim
                                             : columns;
    item->value_chunk_stride = packs_value ? count * columns : columns;
    if (plan->lists_rows) {
        list_block(item, packs_value);
    }
    if (problem->extra_cols > 0) {
        take_extra_columns(item, count);
    }
}

/* ---- what is needed next ---- */

static attni_ahead all_of(const attni_source_rows *rows, const attni_operand *operand,
                          int64_t count, int64_t cols) {
    return (attni_ahead){
        .row = rows->data,
        .stride = rows->row_stride * operand->element_bytes,
        .bytes = cols / attn_dtype_values(operand->dtype) * operand->element_bytes,
        .num_rows = rows->col_stride == 1 ? attni_min(count, rows->count) : 0,
        .rows_at_once = 1,
    };
}

static attni_ahead keys_of(const attni_fused_item *item, attni_interval keys) {
    const attni_source_rows rows = attni_fused_keys_from(item, keys.begin);
    return all_of(&rows, &item->engine->problem->key, keys.end - keys.begin,
                  item->engine->problem->head_dim);
}

static attni_ahead values_of(const attni_fused_item *item, attni_interval keys) {
    const attni_source_rows rows = attni_fused_values_from(item, keys.begin);
    return all_of(&rows, &item->engine->problem->value, keys.end - keys.begin,
                  item->engine->problem->value_dim);
}

static attni_ahead queries_of(const attni_fused_item *item, attni_interval rows) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_source_rows first =
        attni_operand_rows(problem, &problem->query, item->batch, item->first_head, rows.begin);
    return all_of(&first, &problem->query, rows.end - rows.begin, problem->head_dim);
}

/* The first block of keys of an item, and the rows of its first head. */
static void find_start(attni_fused_item *item, int64_t block, attni_interval *keys,
                       attni_interval *rows) {
    const attni_fused_plan *plan = item->engine->plan;
    *rows = attni_fused_block_rows(item->engine, block);
    rows->begin /= plan->group;
    rows->end = attni_divide_up(rows->end, plan->group);
    *keys = attni_rows_union(&item->sequence.visibility, rows->begin, rows->end);
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
    if (!attni_has_blocks(item->engine->problem)) {
        ahead[0] = keys_of(&next, keys);
        ahead[1] = values_of(&next, keys);
    }
    ahead[2] = queries_of(&next, rows);
}

/* Rows in lanes score about so many keys between two requests, and every panel does. */
enum { KEYS_OF_A_REQUEST = 8 };

static int64_t rows_at_once(const attni_fused_item *item, const attni_ahead *ahead) {
    int64_t rows = 0;
    for (int32_t i = 0; i < ATTNI_NUM_AHEAD; ++i) {
        rows += ahead[i].num_rows;
    }
    return attni_divide_up(rows, attni_max(1, attni_fused_count_keys(item) / KEYS_OF_A_REQUEST));
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
