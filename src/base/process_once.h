/* SPDX-License-Identifier: BSD-3-Clause
 *
 * process_once.h: state that every process has to make for itself. A forked child inherits locks
 * and counters as its parent's threads, which do not exist in it, may have left them.
 */
#ifndef ATTNI_BASE_PROCESS_ONCE_H
#define ATTNI_BASE_PROCESS_ONCE_H

#include <stdatomic.h>
#include <stdint.h>

/* Identities of processes; 0 at first. */
typedef struct attni_process_once {
    _Atomic uint64_t claimed_by; /* the last to make the state, or about to */
    _Atomic uint64_t made_by;    /* the one the state is good for */
} attni_process_once;

/* Returns when make() has returned in this process: the first of its threads to come calls it,
 * others wait for that. */
void attni_once_per_process(attni_process_once *once, void (*make)(void));

#endif
