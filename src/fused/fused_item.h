/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_item.h: where an item is: its batch, group and split, and the rows and scratch memory that
 * follow from them.
 */
#ifndef ATTNI_FUSED_FUSED_ITEM_H
#define ATTNI_FUSED_FUSED_ITEM_H

#include "fused/fused_state.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

/* An element of `bytes` bytes, by its number; rows of an empty operand are NULL, and stay so. */
static inline const void *attni_element(const void *first, int64_t number, int64_t bytes) {
    return attni_advance((char *)(uintptr_t)first, number * bytes);
}

static inline float *attni_floats_to(char *data, int64_t offset) {
    return (float *)(void *)attni_advance(data, offset * (int64_t)sizeof(float));
}

/* Offset of row 0 and column 0 of an operand, or of a scalar option, in elements. */
static inline int64_t attni_fused_offset(const attni_fused_item *item, const int64_t *strides,
                                         int64_t head) {
    return attni_head_offset(item->engine->problem, strides, item->batch, head);
}

/* Rows of key of the group at hand. */
static inline attni_source_rows attni_fused_keys_from(const attni_fused_item *item, int64_t first) {
    return attni_source_keys(item->engine->problem, &item->sequence, item->first_head, first);
}

static inline attni_source_rows attni_fused_values_from(const attni_fused_item *item,
                                                        int64_t first) {
    return attni_source_values(item->engine->problem, &item->sequence, item->first_head, first);
}

/* Rows of value, of the block at hand, as numbers that storage kernels read. */
static inline attni_source_rows attni_fused_read_values(const attni_fused_item *item,
                                                        int64_t first) {
    const int64_t value_dim = item->engine->problem->value_dim;
    if (item->dequantized == NULL) {
        return attni_fused_values_from(item, first);
    }
    const float *row = item->dequantized + (first - item->block.begin) * value_dim;
    return (attni_source_rows){(void *)(uintptr_t)row, value_dim, 1, item->block.end - first};
}

/* The key at hand that is source key `key`, and its value. */
static inline const void *attni_fused_key_at(const attni_fused_item *item, int64_t key) {
    return attni_element(item->key, (key - item->block.begin) * item->key_stride,
                         item->engine->plan->key_bytes);
}

static inline const void *attni_fused_value_at(const attni_fused_item *item, int64_t key) {
    return attni_element(item->value, (key - item->block.begin) * item->value_key_stride,
                         item->engine->plan->value_bytes);
}

/* The pair, of those at hand, that has the value of source key `key`. */
static inline const void *attni_fused_value_pair_at(const attni_fused_item *item, int64_t key) {
    return attni_element(item->value, (key / 2 - item->block.begin / 2) * item->value_key_stride,
                         (int64_t)sizeof(uint32_t));
}

/* The first key behind the tile that `key` is in. */
static inline int64_t attni_fused_past_tile(const attni_fused_plan *plan, int64_t key) {
    return (key / plan->key_block + 1) * plan->key_block;
}

/* An item in a slot's scratch memory, nowhere yet; then at a batch, a group and a split; at those
 * of item `index`, whose block it returns. */
attni_fused_item attni_fused_item_in(const attni_fused_engine *engine, int32_t slot);
void attni_fused_go_to(attni_fused_item *item, int64_t batch, int64_t group, int64_t split);
int64_t attni_fused_go_to_item(attni_fused_item *item, int64_t index);

#endif
