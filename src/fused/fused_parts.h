/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_parts.h: what a block mask leaves of the keys that panels see by position. Without one it
 * leaves all.
 */
#ifndef ATTNI_FUSED_FUSED_PARTS_H
#define ATTNI_FUSED_FUSED_PARTS_H

#include "fused/fused_state.h"
#include "problem/block_mask.h"

/* Finds what the block mask shows of the block at hand to some panel: item->shown. */
void attni_fused_find_shown(attni_fused_item *item);

/* Whether a key is in it. */
bool attni_fused_is_shown(const attni_fused_item *item, int64_t key);

/* Takes from the ends of what each panel sees what the block mask hides from all its rows. */
void attni_fused_trim_to_blocks(const attni_fused_item *item);

/* The keys of a block that the block mask shows to some panel, outer bounds; nothing if none has a
 * key or its end there. */
attni_interval attni_fused_shown_block(const attni_fused_item *item, attni_interval block);

/* Keys of the block at hand that panels see, those of all together. */
int64_t attni_fused_count_keys(const attni_fused_item *item);

/* The parts of a tile that has `keys`, some of the block at hand: item->parts. */
attni_panel_tile attni_fused_cut_tile(const attni_fused_item *item, const attni_panel *panel,
                                      attni_interval keys);

/* What the block mask says to the row of each lane, enum attn_block, of the first of `keys`.
 * Returns the first key of which it may say something else, or keys.end. */
int64_t attni_fused_read_blocks(const attni_fused_item *item, const attni_panel *panel,
                                attni_interval keys, int32_t blocks[ATTNI_PANEL_LANES]);

#endif
