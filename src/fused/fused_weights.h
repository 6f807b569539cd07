/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_weights.h: the weights output.
 */
#ifndef ATTNI_FUSED_FUSED_WEIGHTS_H
#define ATTNI_FUSED_FUSED_WEIGHTS_H

#include "fused/fused_state.h"

/* Sets the averaged weights of a block's rows to 0, before heads add to them. */
void attni_fused_clear_averages(const attni_fused_item *item, int64_t block);

/* Stores the averaged weights of a block's rows, where they were summed apart. */
void attni_fused_store_averages(const attni_fused_item *item, int64_t block);

/* The weights output's columns of a tile; per head also zeros at positions the panel does not see.
 * In a row of NaN the tile takes the factor, which becomes 1. */
void attni_fused_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               const attni_panel_tile *tile, float *factor);

#endif
