/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_timing.h: times of calls, contestants interleaved.
 */
#ifndef ATTN_BENCH_TIMING_H
#define ATTN_BENCH_TIMING_H

#include <stdint.h>

#include "bench_call.h"

/* One contestant's times. */
typedef struct bench_times {
    int64_t calls;   /* of one timing: as many as 20 us need */
    int64_t count;   /* timings */
    double *seconds; /* of one call, in the order of the rounds */
} bench_times;

/*
 * Warms every contestant up, then times rounds of all of them, each round beginning with another,
 * until there are `repeats` rounds and `seconds` for each contestant have passed. Where there are
 * several, each timing of short calls follows one that is not counted, so that the caches hold the
 * contestant's own data. Returns an exit code, after an error line. bench_times_free is due in
 * either case.
 */
int bench_time(bench_call *calls, int contestants, int64_t repeats, double seconds,
               bench_times *times);

void bench_times_free(bench_times *times);

/* The value below which share `quantile` of values[0, count) lie, interpolated: 0.5 is the median,
 * 0 the least. Sorts the values. count >= 1. */
double bench_quantile(double *values, int64_t count, double quantile);

#endif
