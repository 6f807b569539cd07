/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_values.h: values that not all rows of a panel see.
 */
#ifndef ATTNI_FUSED_FUSED_VALUES_H
#define ATTNI_FUSED_FUSED_VALUES_H

#include "fused/fused_state.h"

/* The keys of a tile that all rows of a panel see. */
attni_interval attni_fused_common_keys(const attni_panel *panel, const attni_tile_keys *keys);

/* Adds to the sums of one row the values of the keys in `part` that it sees. `weights` is the
 * lane's for the first key of the whole tile, the others are weight_stride apart. */
void attni_fused_add_own_values(const attni_fused_item *item, const attni_panel *panel,
                                const attni_tile_keys *keys, attni_interval part, int32_t lane,
                                const float *weights, int64_t weight_stride);

/* The keys of a tile before those that all rows see, all of them if there are none; and those
 * behind. */
attni_interval attni_fused_keys_before(const attni_tile_keys *keys, attni_interval common);
attni_interval attni_fused_keys_behind(const attni_tile_keys *keys, attni_interval common);

#endif
