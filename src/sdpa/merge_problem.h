/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_problem.h: one merge of partial results, checked.
 *
 * Its rows are output's without the last axis. Row axes that follow each other without a gap in
 * every tensor of the call are one, and those of length 1 are none, so that a few long axes remain.
 */
#ifndef ATTNI_SDPA_MERGE_PROBLEM_H
#define ATTNI_SDPA_MERGE_PROBLEM_H

#include <attention/merge.h>

/* The axes of rows, outermost first; one of length 1 if there would be none. */
typedef struct attni_merge_axes {
    int32_t rank; /* 1 and up */
    int64_t shape[ATTN_MAX_RANK];
    int32_t axis[ATTN_MAX_RANK]; /* the axis of the tensors whose stride each has */
} attni_merge_axes;

typedef struct attni_merge_problem {
    int64_t count;
    const attn_tensor *outputs; /* count views of one shape */
    const attn_tensor *lses;    /* likewise, or NULL: outputs are added */
    const attn_tensor *output;
    const attn_tensor *lse; /* or NULL */
    attn_tensor sinks;      /* on the axes of lse, stride 0 where it repeats; dtype 0: none */
    int32_t score_dtype;    /* of lses, lse and sums */
    int64_t num_rows;
    int64_t num_cols; /* Ev */
    attni_merge_axes rows;
} attni_merge_problem;

#endif
