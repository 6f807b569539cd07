/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_engine.h: attention by matrix products.
 */
#ifndef ATTNI_BLAS_BLAS_ENGINE_H
#define ATTNI_BLAS_BLAS_ENGINE_H

#include "blas/blas_state.h"

/* Computes a planned call in a block of its layout, and counts the blocks into *num_blocks. */
attn_status attni_blas_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_blas_plan *plan, char *scratch, int64_t *num_blocks);

#endif
