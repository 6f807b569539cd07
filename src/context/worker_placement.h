/* SPDX-License-Identifier: BSD-3-Clause
 *
 * worker_placement.h: a worker is woken on another CPU than its waker's.
 *
 * Linux wakes a thread on an idle CPU if it sees one. In a virtual machine it often does not: an
 * idle virtual CPU has been given back to the host and counts as taken. Waker and worker then share
 * a CPU until the next balancing, milliseconds later, while another one is free.
 *
 * CPUs that somebody else gives a worker meanwhile, as `taskset` might, are its own from then on.
 *
 * A placement has no lock of its own: the pool's sleep mutex is held around every call.
 */
#ifndef ATTNI_CONTEXT_WORKER_PLACEMENT_H
#define ATTNI_CONTEXT_WORKER_PLACEMENT_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* Zeroed: awake, on any CPU it may run on. */
typedef struct attni_worker_placement {
    bool is_asleep;
    bool is_kept_away; /* `allowed` is to be given back to the worker */
    int32_t cpu;       /* that it is kept away from */
    cpu_set_t allowed; /* the CPUs it may run on, that one among them or not */
} attni_worker_placement;

/* Keeps a worker that is asleep away from a CPU, the waker's, until it is awake, if it may run on
 * others. Best effort: nothing depends on it but time. */
void attni_placement_keep_away(attni_worker_placement *placement, pthread_t worker, int32_t cpu);

/* The worker that calls it is awake: it may run again where it might before, unless its CPUs were
 * changed by others since it was kept away. */
void attni_placement_note_awake(attni_worker_placement *placement);

#endif
