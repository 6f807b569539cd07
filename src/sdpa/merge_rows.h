/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_rows.h: a few rows of partial results become rows of the whole.
 */
#ifndef ATTNI_SDPA_MERGE_ROWS_H
#define ATTNI_SDPA_MERGE_ROWS_H

#include "kernels/kernel_select.h"
#include "sdpa/merge_problem.h"

/* How many blocks of rows there are. */
int64_t attni_merge_num_blocks(const attni_merge_problem *problem);

/* Block `block` of them; different blocks share no element that is written. */
void attni_merge_block(const attni_merge_problem *problem, const attni_kernel_set *kernels,
                       int64_t block);

#endif
