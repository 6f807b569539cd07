/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_panel.h: panels: which rows they have, what those see, and what becomes of their results.
 */
#ifndef ATTNI_FUSED_FUSED_PANEL_H
#define ATTNI_FUSED_FUSED_PANEL_H

#include "fused/fused_state.h"

enum { ATTNI_NO_KEY = -1 };

extern const float attni_fused_ones[ATTNI_PANEL_LANES];

/* Whether a row has seen nothing, by its largest score and the sum of its weights. */
bool attni_fused_is_empty(const attni_fused_engine *engine, float max, float sum);

/* The part of `count` keys from first_key on that each lane sees, relative to first_key: [begin,
 * end), both ascending; all of them for ATTNI_NO_KEY. */
void attni_fused_bound_rows(const attni_panel *panel, int64_t first_key, int64_t count,
                            int32_t begin[ATTNI_PANEL_LANES], int32_t end[ATTNI_PANEL_LANES]);

/* Rows of a group that make a block. */
attni_interval attni_fused_block_rows(const attni_fused_engine *engine, int64_t block);

/* The panels of block `block` of the group at hand; then their queries. */
void attni_fused_place_panels(attni_fused_item *item, int64_t block);

/* Forgets what a panel has seen, before a chunk. */
void attni_fused_start_panel(attni_panel *panel);
void attni_fused_pack_queries(attni_fused_item *item);

/* What a panel's sums are to be multiplied with now that it has seen everything, into factor;
 * stores lse. */
void attni_fused_finish_panel(const attni_fused_item *item, attni_panel *panel, float *factor);

/* Stores the panel's output where values did not do it: rows that see nothing are 0; with is_staged
 * the others are copied from `sums`. */
void attni_fused_store_output(const attni_fused_item *item, const attni_panel *panel, float *sums,
                              bool is_staged);

#endif
