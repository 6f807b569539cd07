/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_angles.h: cosines and sines of a block of rows and pairs.
 */
#ifndef ATTNI_ROTARY_ROPE_ANGLES_H
#define ATTNI_ROTARY_ROPE_ANGLES_H

#include "kernels/kernel_select.h"
#include "rotary/rope_problem.h"

/* Rows of one group and some of their pairs. */
typedef struct attni_rope_block {
    int64_t group;
    int64_t first_row;
    int64_t num_rows;
    int64_t first_pair;
    int64_t num_pairs;
} attni_rope_block;

/* Row `index` of a problem's starts, clamped to the rows of input. */
int64_t attni_rope_start_of(const attni_rope_problem *problem, int64_t index);

/* Whether angles are computed, not looked at. */
bool attni_rope_computes_angles(const attni_rope_problem *problem);

/* frequencies[i] is that of pair first_pair + i, i < num_pairs; nothing where there are tables. */
void attni_rope_frequencies(const attni_rope_problem *problem, int64_t first_pair,
                            int64_t num_pairs, double *frequencies);

/* cosines and sines, (num_rows, num_pairs) of the score type, with the problem's factors;
 * frequencies are those of the block's pairs. */
void attni_rope_fill(const attni_rope_problem *problem, const attni_kernel_set *set,
                     const attni_rope_block *block, const double *frequencies, char *cosines,
                     char *sines);

#endif
