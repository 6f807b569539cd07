/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_rows.h: the steps of a tile of a few rows.
 */
#ifndef ATTNI_FUSED_FUSED_ROWS_H
#define ATTNI_FUSED_FUSED_ROWS_H

#include "fused/fused_state.h"

extern const attni_tile_steps attni_steps_by_rows;

#endif
