/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_pairs.h: the steps of a tile of bfloat16 whose rows stand in the lanes of vectors.
 */
#ifndef ATTNI_FUSED_FUSED_PAIRS_H
#define ATTNI_FUSED_FUSED_PAIRS_H

#include "fused/fused_state.h"

extern const attni_tile_steps attni_steps_by_pairs;

#endif
