/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_run.h: what a test call runs with: context, workspace, and the outcome it reports.
 */
#ifndef ATTENTION_TESTS_CALL_RUN_H
#define ATTENTION_TESTS_CALL_RUN_H

#include <stddef.h>

#include <attention/context.h>

#include "covering_array.h"
#include "support/compare.h"

typedef struct call_outcome {
    compare_stats output, weights, lse, scores;
    int64_t num_visible; /* positions of rows that take part, over all calls */
    int64_t num_calls;
    int64_t num_seeing; /* calls in which some row sees a key */
    char message[600];  /* why the last call failed */
} call_outcome;

/* Builds the case, calls the library, compares everything. Returns 0, or 1 with outcome->message.
 * free_lengths is one of enum free_lengths. */
typedef int (*case_runner)(const factor_set *set, const factor_case *chosen, uint64_t seed,
                           int free_lengths, call_outcome *outcome);

/* The context the case asks for, kept for other cases: making threads takes longer than most calls.
 * Valid until the next call; for one thread. Ends the program if it cannot be made. */
attn_context *case_context(const factor_set *set, const factor_case *chosen);

/* A caller's workspace between watched margins. */
typedef struct watched_workspace {
    unsigned char *memory;
    size_t memory_bytes;
    void *start; /* NULL: the library is to allocate */
    size_t bytes;
} watched_workspace;

watched_workspace workspace_create(const factor_case *chosen, size_t needed_bytes);
/* 0, or 1 if something outside the workspace was written. */
int workspace_check(const watched_workspace *workspace, char *message, size_t message_bytes);
void workspace_destroy(watched_workspace *workspace);

/* Writes "name: ATTN_ERROR_X: detail" into the outcome if status is not ATTN_OK, and returns
 * whether it was not. */
int call_failed(const char *name, int32_t status, call_outcome *outcome);

/* Prints the largest error / bound ratios and the number of elements compared, one line each. */
void outcome_print(const char *name, const call_outcome *outcome);

/* Whether some error was more than a thousandth of its bound, as with bounds that are not loose. Of
 * a few elements in the cases of strength 1 perhaps none is. */
int outcome_is_tight(const compare_stats *stats);

/*
 * Runs every case of a pairwise covering array of the set, then up to MOST_MORE cases made of pairs
 * that so far met only where positions hid every key from every row. Prints the figures, and each
 * failing case with all its options. Returns the number of failed cases, plus the pairs the array
 * misses, plus the pairs that still have not met where a row sees a key.
 */
int64_t run_covering_array(const char *name, const factor_set *set, uint64_t seed, case_runner run,
                           call_outcome *outcome);

#endif
