/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_blocks.h: blocks of rows and keys, as the products of a tile read them: rows of
 * consecutive numbers of the score type, and strips of them (product_kernels.h).
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_BLOCKS_H
#define ATTNI_GRADIENTS_GRADIENTS_BLOCKS_H

#include "gradients/gradients_state.h"

/* How many blocks of keys a sequence has room for, and which keys block `block` has: none behind
 * the last. */
int64_t attni_gradients_key_blocks(const attni_gradients_item *item);
void attni_gradients_choose_keys(attni_gradients_item *item, int64_t block);

/* The same of any keys of the sequence, not more than a block has. */
void attni_gradients_place_keys(attni_gradients_item *item, attni_interval keys);

/* Keys and values of the block for a query head, unless they are at hand. */
void attni_gradients_take_keys(attni_gradients_item *item, int64_t head);

/* Rows [first, first + count) of a head. Those that see nothing are all 0 in strips. */
void attni_gradients_take_rows(attni_gradients_item *item, int64_t head, int64_t first,
                               int64_t count);

/* Rows of block `block` of a head that see some key of the block at hand; an empty interval if none
 * does. */
attni_interval attni_gradients_seeing_rows(const attni_gradients_item *item, int64_t head,
                                           int64_t block);

/* The keys of the block at hand that a row of the sequence sees, counted from its first. */
attni_interval attni_gradients_seen_keys(const attni_gradients_item *item, int64_t row);

#endif
