/* SPDX-License-Identifier: BSD-3-Clause
 *
 * absurd_views.h: views whose axes are as long as numbers of 32 and 64 bits get, for calls that
 * must be refused by their sizes alone, and how those ended.
 */
#ifndef ATTENTION_TESTS_ABSURD_VIEWS_H
#define ATTENTION_TESTS_ABSURD_VIEWS_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

/* 0, 1 and lengths at the edges of 32 and 64 bits. */
enum { NUM_ABSURD_LENGTHS = 9 };
extern const int64_t absurd_lengths[NUM_ABSURD_LENGTHS];

/* Fills `lengths` with combination number `which` of NUM_ABSURD_LENGTHS to the power of count, and
 * returns the number over all of them. */
int64_t absurd_combination(int64_t which, int count, int64_t *lengths);

/* Repeats one element, so that it is small however long its axes are. */
attn_tensor absurd_input(void *data, int32_t dtype, int32_t rank, const int64_t *shape);

/* An output may not repeat an element, so its axes are strided where that can be said; elements of
 * the last axis are `spacing` apart, which may be negative. */
attn_tensor absurd_output(void *data, int32_t dtype, int32_t rank, const int64_t *shape,
                          int64_t spacing);

/* What became of them. */
typedef struct absurd_counts {
    int64_t planned, refused;
    int64_t too_large, no_workspace; /* calls refused for sizes, or for those of their workspace */
} absurd_counts;

/* Counts how a question about the workspace's bytes ended, and returns that: with bytes that there
 * can be, or refused for sizes, with a line. Ends the test otherwise. */
attn_status absurd_count_plan(attn_status status, size_t bytes, absurd_counts *counts);

/* Counts how a call ended whose plan was refused: as that was, or because outputs so large overlap,
 * with a line. Ends the test otherwise. */
void absurd_count_call(attn_status planned, attn_status status, absurd_counts *counts);

#endif
