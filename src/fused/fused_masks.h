/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_masks.h: where the rows of a dense mask are that a panel's rows meet.
 */
#ifndef ATTNI_FUSED_FUSED_MASKS_H
#define ATTNI_FUSED_FUSED_MASKS_H

#include "fused/fused_state.h"

/* Whether all rows of a panel share the mask's row. */
bool attni_fused_rows_share_mask(const attni_fused_item *item, const attni_mask *mask);

/* The rows of a mask in the first `count` lanes, from key `keys.begin` on, side by side along the
 * keys: in place, or staged. The mask has elements for all of `keys`. */
void attni_fused_find_mask_rows(const attni_fused_item *item, const attni_panel *panel,
                                const attni_mask *mask, attni_interval keys, int32_t count,
                                const char *rows[ATTNI_PANEL_LANES]);

/* Key `key` of the mask's row in a lane; of a mask whose columns are keys. */
const char *attni_fused_mask_element(const attni_fused_item *item, const attni_panel *panel,
                                     const attni_mask *mask, int32_t lane, int64_t key);

/* A panel's rows of a mask as memory to ask for, where they lie evenly: those of one head, or of
 * heads that share them. Without rows_at_once. */
attni_ahead attni_fused_mask_rows_ahead(const attni_fused_item *item, const attni_panel *panel,
                                        const attni_mask *mask, attni_interval keys);

#endif
