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

#endif
