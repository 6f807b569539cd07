/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_lane_options.h: what the options do to a tile of scores whose rows stand in lanes.
 */
#ifndef ATTNI_FUSED_FUSED_LANE_OPTIONS_H
#define ATTNI_FUSED_FUSED_LANE_OPTIONS_H

#include "fused/fused_state.h"

void attni_lanes_edit(const attni_fused_item *item, attni_panel *panel,
                      const attni_tile_keys *keys);

/* Dropout of a tile's weights. */
void attni_lanes_drop(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys);

#endif
