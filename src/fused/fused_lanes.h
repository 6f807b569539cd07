/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_lanes.h: the steps of a tile whose rows stand in the lanes of vectors.
 */
#ifndef ATTNI_FUSED_FUSED_LANES_H
#define ATTNI_FUSED_FUSED_LANES_H

#include "fused/fused_state.h"

extern const attni_tile_steps attni_steps_in_lanes;

#endif
