/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_keys.h: blocks of keys and values, and what is asked for before it is needed.
 */
#ifndef ATTNI_FUSED_FUSED_KEYS_H
#define ATTNI_FUSED_FUSED_KEYS_H

#include "fused/fused_state.h"

/* Makes `block` the keys at hand; then asks for what is needed next: the keys `next`, or those of
 * another item if there are none. */
void attni_fused_take_block(attni_fused_item *item, attni_interval block);
void attni_fused_look_ahead(attni_fused_item *item, attni_interval next);

/* Of the stretches of memory that are needed next, the first that has not all been asked for. */
static inline attni_ahead *attni_fused_ahead(attni_fused_item *item) {
    int32_t i = 0;
    while (i < ATTNI_NUM_AHEAD - 1 && item->ahead[i].num_rows == 0) {
        ++i;
    }
    return &item->ahead[i];
}

#endif
