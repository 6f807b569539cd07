/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_lanes.h: the steps of a tile whose rows stand in the lanes of vectors.
 */
#ifndef ATTNI_FUSED_FUSED_LANES_H
#define ATTNI_FUSED_FUSED_LANES_H

#include "fused/fused_state.h"

extern const attni_tile_steps attni_steps_in_lanes;

/* Two of them. */
void attni_lanes_normalize(const attni_fused_item *item, attni_panel *panel,
                           const attni_panel_tile *tile);
void attni_lanes_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               float *const *rows, int64_t first, int64_t count,
                               const float *factor, bool is_added);

/* Whether the values of some keys at hand are finite. */
bool attni_lanes_are_finite(const attni_fused_item *item, attni_interval keys);

/* Whether a weight of 0 keeps every value of the tile out of the rows that must not see it: those
 * that not all rows see have to be finite. */
bool attni_lanes_zeros_hide(const attni_fused_item *item, const attni_panel *panel,
                            const attni_tile_keys *keys);

/* The part of a tile's keys that each row sees, row by row. */
void attni_lanes_weigh_own_keys(const attni_fused_item *item, const attni_panel *panel,
                                const attni_tile_keys *keys, attni_interval part);

/* The panel's rows as kernels weigh values for them. With a factor their sums are complete once
 * these are weighed, and outputs[lane] is where they go. */
attni_value_tile attni_lanes_value_tile(const attni_fused_item *item, attni_panel *panel,
                                        const attni_tile_keys *keys, const float *factor,
                                        float *outputs[ATTNI_PANEL_LANES]);

#endif
