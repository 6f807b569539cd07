/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_blocks.c: takes rows from where a caller has them, of any type and stride, in pages or
 * not, and lays them out for products.
 */
#include "gradients/gradients_blocks.h"

#include <math.h>
#include <string.h>

#include "base/checked_size.h"
#include "gradients/gradients_view.h"
#include "kernels/stored_rows.h"
#include "problem/block_mask.h"
#include "problem/quantized_rows.h"
#include "problem/source_rows.h"

/* ---- which ---- */

int64_t attni_gradients_key_blocks(const attni_gradients_item *item) {
    return attni_divide_up(item->view.sequence.num_rows, item->engine->plan->key_block);
}

/* Of some keys, those from the first to the last that a row of the sequence sees. */
static attni_interval seen_by_some(const attni_gradients_item *item, attni_interval keys) {
    const int64_t rows = item->view.call->tgt_len;
    if (rows == 0) {
        return (attni_interval){0, 0};
    }
    const attni_interval seen = attni_rows_union(&item->view.sequence.visibility, 0, rows);
    return attni_interval_between(attni_max(seen.begin, keys.begin), attni_min(seen.end, keys.end));
}

void attni_gradients_place_keys(attni_gradients_item *item, attni_interval block) {
    item->keys.block = block;
    item->keys.keys = seen_by_some(item, block);
    item->keys.count = item->keys.keys.end - item->keys.keys.begin;
    item->keys.key_head = -1;
    item->keys.value_head = -1;
}

void attni_gradients_choose_keys(attni_gradients_item *item, int64_t block) {
    const int64_t size = item->engine->plan->key_block;
    const int64_t end = item->view.sequence.num_rows;
    attni_gradients_place_keys(
        item, (attni_interval){attni_min(block * size, end), attni_min((block + 1) * size, end)});
}

attni_interval attni_gradients_seen_keys(const attni_gradients_item *item, int64_t row) {
    const attni_gradient_keys *keys = &item->keys;
    const attni_interval seen = attni_row_interval(&item->view.sequence.visibility, row);
    return attni_interval_between(attni_max(seen.begin - keys->keys.begin, 0),
                                  attni_min(seen.end - keys->keys.begin, keys->count));
}

static bool sees_some(const attni_gradients_item *item, int64_t row) {
    const attni_interval seen = attni_gradients_seen_keys(item, row);
    return seen.begin < seen.end;
}

/* Both ends of what a row sees only grow with it, so those that see a key are neighbours. */
attni_interval attni_gradients_seeing_rows(const attni_gradients_item *item, int64_t head,
                                           int64_t block) {
    const int64_t size = item->engine->plan->row_block;
    attni_interval rows = {block * size, attni_min((block + 1) * size, item->view.call->tgt_len)};
    while (rows.begin < rows.end && !sees_some(item, rows.begin)) {
        ++rows.begin;
    }
    while (rows.begin < rows.end && !sees_some(item, rows.end - 1)) {
        --rows.end;
    }
    const attni_block_rows shown = {
        item->view.call, item->view.sequence.batch, {head, head + 1}, rows};
    const bool is_hidden = rows.begin < rows.end && attni_has_blocks(item->view.call) &&
                           attni_first_shown(&shown, item->keys.keys).begin == item->keys.keys.end;
    return is_hidden ? (attni_interval){0, 0} : rows;
}

/* ---- rows as they are ---- */

/* Whether products can read them where they are; a single column may have any stride. */
static bool are_numbers(const attni_gradients_item *item, const attni_operand *operand,
                        const attni_source_rows *rows, int64_t count, int64_t cols) {
    return operand->dtype == item->engine->dtype && (rows->col_stride == 1 || cols <= 1) &&
           rows->count >= count;
}

static void copy_rows(const attni_gradients_item *item, const attni_operand *operand,
                      const attni_source_rows *rows, int64_t count, int64_t cols, char *to) {
    for (int64_t row = 0; row < count; ++row) {
        const int64_t offset = row * rows->row_stride * operand->element_bytes;
        attni_take_row(item->engine->set, to + row * cols * item->engine->element,
                       attni_advance(rows->data, offset), operand->dtype, rows->col_stride, cols);
    }
}

static attni_gradient_lines take_rows(const attni_gradients_item *item,
                                      const attni_operand *operand, int64_t head, int64_t first,
                                      int64_t count, int64_t cols, char *memory) {
    const attni_source_rows rows =
        attni_operand_rows(item->view.call, operand, item->view.sequence.batch, head, first);
    if (are_numbers(item, operand, &rows, count, cols)) {
        return (attni_gradient_lines){rows.data, rows.row_stride};
    }
    copy_rows(item, operand, &rows, count, cols, memory);
    return (attni_gradient_lines){memory, cols};
}

typedef attni_source_rows rows_from(const attni_sdpa_problem *problem,
                                    const attni_sequence *sequence, int64_t head, int64_t first);

/* Of key or value. */
static attni_gradient_lines take_source(const attni_gradients_item *item,
                                        const attni_operand *operand, rows_from *source,
                                        attni_dequantizer *dequantize, int64_t head, int64_t cols,
                                        char *memory) {
    const attni_sdpa_problem *call = item->view.call;
    const attni_gradient_keys *keys = &item->keys;
    const attni_sequence *sequence = &item->view.sequence;
    if (attni_is_quantized(operand->dtype)) {
        dequantize(item->engine->set, call, sequence, head, keys->keys.begin, keys->count,
                   (float *)(void *)memory, cols);
        return (attni_gradient_lines){memory, cols};
    }
    attni_source_rows rows = source(call, sequence, head, keys->keys.begin);
    if (are_numbers(item, operand, &rows, keys->count, cols)) {
        return (attni_gradient_lines){rows.data, rows.row_stride};
    }
    for (int64_t done = 0; done < keys->count;) {
        rows = source(call, sequence, head, keys->keys.begin + done);
        const int64_t count = attni_min(rows.count, keys->count - done);
        copy_rows(item, operand, &rows, count, cols, memory + done * cols * item->engine->element);
        done += count;
    }
    return (attni_gradient_lines){memory, cols};
}

/* ---- strips ---- */

/* A matrix of `depth` rows that a product sums over, and `cols` columns. */
static void pack_strips(const attni_gradients_engine *engine, char *strips, char *data,
                        int64_t depth_stride, int64_t col_stride, int64_t depth, int64_t cols) {
    for (int64_t col = 0; col < cols; col += engine->strip_cols) {
        engine->products->pack(strips + col * depth * engine->element,
                               attni_advance(data, col * col_stride * engine->element),
                               depth_stride, col_stride, depth,
                               attni_min(engine->strip_cols, cols - col));
    }
}

static void clear_in_strips(const attni_gradients_engine *engine, char *strips, int64_t row,
                            int64_t depth, int64_t cols) {
    const int64_t bytes = engine->strip_cols * engine->element;
    for (int64_t col = 0; col < cols; col += engine->strip_cols) {
        memset(strips + col * depth * engine->element + row * bytes, 0, (size_t)bytes);
    }
}

/* ---- blocks ---- */

static void take_key(attni_gradients_item *item, int64_t head) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *call = item->view.call;
    attni_gradient_keys *keys = &item->keys;
    keys->key = take_source(item, &call->key, attni_source_keys, attni_dequantize_keys, head,
                            call->head_dim, item->slot + engine->plan->key_offset);
    pack_strips(engine, item->slot + engine->plan->key_columns_offset, keys->key.data, 1,
                keys->key.stride, call->head_dim, keys->count);
    if (item->view.gradients->query.is_present) {
        pack_strips(engine, item->slot + engine->plan->key_strips_offset, keys->key.data,
                    keys->key.stride, 1, keys->count, call->head_dim);
    }
}

static void take_value(attni_gradients_item *item, int64_t head) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *call = item->view.call;
    attni_gradient_keys *keys = &item->keys;
    keys->value = take_source(item, &call->value, attni_source_values, attni_dequantize_values,
                              head, call->value_dim, item->slot + engine->plan->value_offset);
    pack_strips(engine, item->slot + engine->plan->value_columns_offset, keys->value.data, 1,
                keys->value.stride, call->value_dim, keys->count);
}

void attni_gradients_take_keys(attni_gradients_item *item, int64_t head) {
    const attni_sdpa_problem *call = item->view.call;
    if (item->keys.key_head != head / call->key_group) {
        item->keys.key_head = head / call->key_group;
        take_key(item, head);
    }
    if (item->keys.value_head != head / call->value_group) {
        item->keys.value_head = head / call->value_group;
        take_value(item, head);
    }
}

/* Whether softmax left a row nothing. */
static bool is_empty(const attni_gradients_item *item, int64_t index) {
    return item->view.call->normalizer == ATTN_NORMALIZER_SOFTMAX &&
           item->rows.lse[index] == -(double)INFINITY;
}

static bool has_empty_rows(const attni_gradients_item *item) {
    bool has_some = false;
    for (int64_t index = 0; index < item->rows.count; ++index) {
        has_some = has_some || is_empty(item, index);
    }
    return has_some;
}

/* The strips of rows: where they are, if they lie side by side and close enough together that those
 * of a product fit into a first level cache; or copied, without what is in empty rows. */
static attni_gradient_strips take_strips(const attni_gradients_item *item,
                                         const attni_gradient_lines *rows, int64_t cols,
                                         bool has_empty, size_t memory_offset) {
    enum { MOST_BYTES_APART = 256 };
    const attni_gradients_engine *engine = item->engine;
    const int64_t width = engine->strip_cols;
    const int64_t count = item->rows.count;
    char *strips = item->slot + memory_offset;
    if (!has_empty && rows->stride == cols && cols % width == 0 &&
        cols * engine->element <= MOST_BYTES_APART) {
        return (attni_gradient_strips){rows->data, width, cols};
    }
    pack_strips(engine, strips, rows->data, rows->stride, 1, count, cols);
    for (int64_t index = 0; index < count; ++index) {
        if (is_empty(item, index)) {
            clear_in_strips(engine, strips, index, count, cols);
        }
    }
    return (attni_gradient_strips){strips, count * width, width};
}

void attni_gradients_take_rows(attni_gradients_item *item, int64_t head, int64_t first,
                               int64_t count) {
    const attni_gradients_engine *engine = item->engine;
    const attni_gradients_plan *plan = engine->plan;
    const attni_sdpa_problem *call = item->view.call;
    attni_gradient_rows *rows = &item->rows;
    rows->head = head;
    rows->first = first;
    rows->count = count;
    rows->query = take_rows(item, &call->query, head, first, count, call->head_dim,
                            item->slot + plan->query_offset);
    rows->output = take_rows(item, &item->view.gradients->output, head, first, count,
                             call->value_dim, item->slot + plan->output_offset);
    if (call->normalizer == ATTN_NORMALIZER_SOFTMAX) {
        attni_gradients_take_lse(item, head, first, count, rows->lse);
    }
    const bool has_empty = has_empty_rows(item);
    if (item->view.gradients->key.is_present) {
        rows->query_strips =
            take_strips(item, &rows->query, call->head_dim, has_empty, plan->query_strips_offset);
    }
    if (item->view.gradients->value.is_present) {
        rows->output_strips = take_strips(item, &rows->output, call->value_dim, has_empty,
                                          plan->output_strips_offset);
    }
}
