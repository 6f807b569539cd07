/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_results.h: memory for what a case's calls write, and its comparison with what is expected.
 */
#ifndef INTEROP_CASE_RESULTS_H
#define INTEROP_CASE_RESULTS_H

#include "case_reader.h"

enum { CASE_MAX_RESULTS = 24 };

/* Contiguous tensors that calls write. */
typedef struct case_results {
    attn_tensor views[CASE_MAX_RESULTS];
    const char *names[CASE_MAX_RESULTS]; /* NULL: nobody expects it */
    int count;
} case_results;

/* New memory; NULL if there is none. */
const attn_tensor *case_results_make(case_results *room, const char *name, int32_t dtype,
                                     int32_t rank, const int64_t *shape);

/* Room for a result that the case expects, of query's type, of lse the score type; NULL if it does
 * not. */
const attn_tensor *case_results_expected(const interop_case *made, case_results *room,
                                         const char *name);

/* The main result; a call to be refused gets query's shape with `features` columns. */
const attn_tensor *case_results_main(const interop_case *made, case_results *room, const char *name,
                                     int64_t features);

/* 0 if everything that the case expects is there and near, else -1 and the reason in `problem`. */
int case_results_compare(const interop_case *made, const case_results *room, char *problem,
                         size_t problem_bytes);

void case_results_free(case_results *room);

#endif
