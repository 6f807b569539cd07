/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_record.h: what is said of a measurement: one JSON object on one line of standard output.
 */
#ifndef ATTN_BENCH_RECORD_H
#define ATTN_BENCH_RECORD_H

#include "bench_call.h"
#include "limits_probe.h"

typedef struct bench_record {
    const bench_call *call;
    int64_t calls_per_timing;
    int64_t repeats;
    double median_seconds;
    double min_seconds;
    double peak_rss_bytes;
    machine_limits limits; /* zeros: not measured */

    /* The contestants after the first: the text of --versus, and the quartiles of the first's time
     * over its own in the same round. */
    const char *versus; /* NULL: the first */
    double speedup[3];
} bench_record;

/* Returns an exit code, after an error line. */
int bench_record_print(const bench_record *record);

/* Prints the limits alone, of that many threads. */
int bench_limits_print(int threads, const machine_limits *limits);

#endif
