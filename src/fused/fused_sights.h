/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_sights.h: what dense masks leave of the keys that a panel sees by position.
 */
#ifndef ATTNI_FUSED_FUSED_SIGHTS_H
#define ATTNI_FUSED_FUSED_SIGHTS_H

#include "fused/fused_state.h"

/* The keys of the block at hand that some row of the panel sees, outer bounds: by position and,
 * where the plan says so, by the masks. With masks panel->sight tells more. */
attni_interval attni_fused_see_block(const attni_fused_item *item, attni_panel *panel);

/* Whether a row of the panel sees a key of a block to come, which panel->next is of then. */
bool attni_fused_sees_next(const attni_fused_item *item, attni_panel *panel, attni_interval block);

/* Takes from the ends of what the panels of a block of rows see by position what masks hide from
 * all rows of each. */
void attni_fused_trim_panels(const attni_fused_item *item, int64_t block);

/* Whether what the slot's last item saw is what this one sees in a block of rows. */
bool attni_fused_keeps_sights_of(const attni_fused_item *item, int64_t block);

/* What asks for the rows of masks that a panel needs for a block, in num_steps steps, and for
 * `also` beside them. */
attni_ahead *attni_fused_masks_ahead(attni_fused_item *item, const attni_panel *panel,
                                     attni_interval block, int64_t num_steps, attni_ahead *also);

#endif
