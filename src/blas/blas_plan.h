/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_plan.h: sizes of blocks and scratch memory of the BLAS engine.
 */
#ifndef ATTNI_BLAS_BLAS_PLAN_H
#define ATTNI_BLAS_BLAS_PLAN_H

#include "base/workspace.h"
#include "blas/blas_state.h"

/* Fills an empty plan and adds its scratch memory to a layout. */
attn_status attni_blas_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                 attni_blas_plan *plan, attni_layout *layout);

/* How many rows the block that begins with row `first_row` has: with a block mask those of one row
 * of blocks at most. */
int64_t attni_blas_block_rows(const attni_blas_plan *plan, const attni_sdpa_problem *problem,
                              int64_t first_row);

#endif
