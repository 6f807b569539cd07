/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_rows.h: features of single rows, rotated or copied.
 */
#ifndef ATTNI_ROTARY_ROPE_ROWS_H
#define ATTNI_ROTARY_ROPE_ROWS_H

#include "kernels/kernel_select.h"
#include "rotary/rope_problem.h"

/* Pairs that are rotated at a time, where they do not lie in memory as kernels read them. */
enum { ATTNI_ROPE_MOST_PAIRS = 256 };

/* Where a row of input and of output begins. */
typedef struct attni_rope_row {
    const char *input;
    char *output;
} attni_rope_row;

/* Pairs [first_pair, first_pair + num_pairs) of a row, at most ATTNI_ROPE_MOST_PAIRS; cosines and
 * sines, of the score type, begin with theirs. */
void attni_rope_rotate(const attni_rope_problem *problem, const attni_kernel_set *set,
                       attni_rope_row row, int64_t first_pair, int64_t num_pairs,
                       const char *cosines, const char *sines);

/* The features from R on; nothing where output is input. */
void attni_rope_copy_rest(const attni_rope_problem *problem, const attni_kernel_set *set,
                          attni_rope_row row);

#endif
