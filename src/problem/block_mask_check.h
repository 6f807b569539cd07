/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_mask_check.h: the rules for a mask by blocks.
 */
#ifndef ATTNI_PROBLEM_BLOCK_MASK_CHECK_H
#define ATTNI_PROBLEM_BLOCK_MASK_CHECK_H

#include "problem/sdpa_problem.h"
#include "problem/sdpa_request.h"

/* block_mask, block_rows and block_columns of the request, given the sizes and batch axes in
 * *problem, whose blocks are filled. `name` is that of block_mask, for messages. */
attn_status attni_check_block_mask(const attni_sdpa_request *request, const char *name,
                                   attni_sdpa_problem *problem);

/* Whether each element of it is an enum attn_block. Reads them. */
attn_status attni_check_blocks(const char *name, const attn_tensor *tensor);

/* Whether a mask has rows of blocks for each of the sequences that query_starts tells apart. Reads
 * these. */
attn_status attni_check_block_rows(const attni_sdpa_problem *problem);

#endif
