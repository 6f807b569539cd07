/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_engine.h: attention tile by tile, for float32.
 */
#ifndef ATTNI_FUSED_FUSED_ENGINE_H
#define ATTNI_FUSED_FUSED_ENGINE_H

#include "context/context.h"
#include "fused/fused_state.h"

/* Computes a planned call in a block of its layout, and counts the items into *num_blocks. */
attn_status attni_fused_run(attn_context *context, const attni_sdpa_problem *problem,
                            const attni_fused_plan *plan, char *scratch, int64_t *num_blocks);

/* ---- the same item by item, for many calls together ---- */

/* The chunks of keys that are items of their own, or {0, 1} where one item has all. Reads lengths,
 * which may be others a moment later. */
attni_interval attni_fused_dealt_chunks(const attni_sdpa_problem *problem,
                                        const attni_fused_plan *plan);

attni_fused_engine attni_fused_engine_of(const attn_context *context,
                                         const attni_sdpa_problem *problem,
                                         const attni_fused_plan *plan, attni_interval chunks,
                                         char *scratch);

/* Before a slot's first item: its memory may hold anything. */
void attni_fused_forget_sights(const attni_fused_engine *engine, int32_t slot);

/* An attni_slot_task: item `index` of engine->num_items. Where these are of several splits,
 * attni_fused_merge_item is to be run for the plan's num_merges after all of them. */
void attni_fused_run_item(void *engine, int32_t slot, int64_t index);

#endif
