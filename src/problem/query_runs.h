/* SPDX-License-Identifier: BSD-3-Clause
 *
 * query_runs.h: a call whose sequences have query rows of their own number, one behind the other,
 * is a few calls with as many for each: neighbours of the same length make one.
 */
#ifndef ATTNI_PROBLEM_QUERY_RUNS_H
#define ATTNI_PROBLEM_QUERY_RUNS_H

#include "problem/sdpa_problem.h"

/* A call on its way through its runs. */
typedef struct attni_query_runs {
    const attni_sdpa_problem *problem;
    int64_t first;                /* sequence of the run at hand */
    attni_interval rows_of_first; /* with query_starts */
    int64_t next;                 /* behind the run */
} attni_query_runs;

/* Before the first run; without query_starts the call is the only one. */
attni_query_runs attni_query_runs_of(const attni_sdpa_problem *problem);

/* Makes *run the next call, or returns false after the last. Starts are read here, each run's once,
 * and clamped, so that rows lie within query whatever there is to read. */
bool attni_next_run(attni_query_runs *runs, attni_sdpa_problem *run);

/* A run of `sequences` from number `first` on, with `rows` each. */
attni_sdpa_problem attni_run_of(const attni_sdpa_problem *problem, int64_t first, int64_t sequences,
                                attni_interval rows_of_first);

#endif
