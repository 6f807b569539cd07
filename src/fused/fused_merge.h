/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_merge.h: rows whose keys come in chunks.
 */
#ifndef ATTNI_FUSED_FUSED_MERGE_H
#define ATTNI_FUSED_FUSED_MERGE_H

#include "fused/fused_state.h"

/* Adds the chunk that a panel has just seen to those before it. */
void attni_fused_fold_panel(const attni_fused_item *item, attni_panel *panel);

/* Stores the results of a panel all of whose chunks are folded. */
void attni_fused_finish_folded(const attni_fused_item *item, attni_panel *panel);

/* The chunk that a panel has just seen, put aside as the index-th of its rows. */
void attni_fused_put_aside(const attni_fused_item *item, const attni_panel *panel, int64_t index);

/* An attni_slot_task: folds what the items of one block have put aside, and finishes its rows. */
void attni_fused_merge_item(void *engine, int32_t slot, int64_t index);

#endif
