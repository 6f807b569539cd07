/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_merge.h: rows whose keys were split over several items.
 */
#ifndef ATTNI_FUSED_FUSED_MERGE_H
#define ATTNI_FUSED_FUSED_MERGE_H

#include "fused/fused_state.h"

/* What a panel has gathered over its split of the keys, put aside. */
void attni_fused_put_aside(const attni_fused_item *item, const attni_panel *panel);

/* An attni_slot_task: gathers what the splits of one block have put aside, and finishes its rows.
 */
void attni_fused_merge_item(void *engine, int32_t slot, int64_t index);

#endif
