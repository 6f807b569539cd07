/* SPDX-License-Identifier: BSD-3-Clause
 *
 * limits_probe.h: the machine's limits, measured by a process of their own: their buffer must not
 * count as this process's memory, and this process's threads must not be forked.
 */
#ifndef ATTN_BENCH_LIMITS_PROBE_H
#define ATTN_BENCH_LIMITS_PROBE_H

#include <sys/types.h>

typedef struct limits_probe {
    pid_t process; /* 0: there is none */
    int channel;
} limits_probe;

/* What was measured; 0: unknown. */
typedef struct machine_limits {
    double fma_flops;
    double read_bytes;
} machine_limits;

/* Starts the process; before this one has threads. Returns an exit code, after an error line. */
int limits_probe_start(limits_probe *probe);

/* Measures for a fifth of a second and raises what is higher now than in *best. Does nothing
 * without a process. */
void limits_probe_raise(const limits_probe *probe, int threads, machine_limits *best);

void limits_probe_stop(limits_probe *probe);

#endif
