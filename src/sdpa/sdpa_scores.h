/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_scores.h: the scores output. Scores are L x S in memory anyway, which the engines avoid, so
 * they are computed apart from them: by the native product, blocks of rows and keys at a time, and
 * the row kernels of the BLAS engine's options. Both engines then need not know of them, and their
 * bits are the same beside either.
 */
#ifndef ATTNI_SDPA_SDPA_SCORES_H
#define ATTNI_SDPA_SDPA_SCORES_H

#include "base/workspace.h"
#include "context/context.h"
#include "problem/sdpa_problem.h"

typedef struct attni_scores_plan {
    int64_t row_blocks; /* of a head's rows */
    int64_t num_items;  /* a block of rows each; 0: no scores are wanted */
    int32_t num_slots;
    size_t slots_offset;    /* in the call's scratch memory */
    size_t slot_bytes;      /* of each, at the offsets below */
    size_t query_offset;    /* a block of rows, where query is not of the score type */
    size_t keys_offset;     /* a block of keys in strips */
    size_t gathered_offset; /* the same as they are, where they lie in pages */
} attni_scores_plan;

/* Adds what it needs to the layout. */
void attni_scores_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                            attni_scores_plan *plan, attni_layout *layout);

/* Adds to the layout as much as any call needs of equally long sequences that `problem`, one with
 * all rows and *plan, may be cut into. */
void attni_scores_bound_runs(const attn_context *context, const attni_sdpa_problem *problem,
                             const attni_scores_plan *plan, attni_layout *layout);

/* Fails as attni_parallel_items. */
attn_status attni_scores_run(attn_context *context, const attni_sdpa_problem *problem,
                             const attni_scores_plan *plan, char *scratch);

#endif
