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

static inline const float *attni_floats(char *data, int64_t offset) {
    return (const float *)(const void *)attni_advance(data, offset * (int64_t)sizeof(float));
}

/* The rows of an empty operand are NULL, and stay so. */
static inline const float *attni_floats_at(const float *first, int64_t offset) {
    return first == NULL ? NULL : first + offset;
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
    return attni_source_keys(item->engine->problem, item->batch, item->first_head, first);
}

static inline attni_source_rows attni_fused_values_from(const attni_fused_item *item,
                                                        int64_t first) {
    return attni_source_values(item->engine->problem, item->batch, item->first_head, first);
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
