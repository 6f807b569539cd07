/* SPDX-License-Identifier: BSD-3-Clause
 *
 * process_identity.c: how often this line of processes has forked, and the system's number.
 */
#include "base/process_identity.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

static _Atomic uint32_t num_forks; /* between the first process to ask and this one, or more */
static atomic_bool is_counting;

static void count_fork(void) {
    atomic_fetch_add_explicit(&num_forks, 1, memory_order_relaxed);
}

/* Threads that come first together may each register the handler, and a fork then counts more than
 * once, which does no harm; waiting for each other might, in a child forked meanwhile. Nobody
 * leaves before a handler is there. Where memory for it is out, and for children made without
 * handlers (_Fork, the bare system call), the system's number has to do. */
uint64_t attni_process_identity(void) {
    if (!atomic_load_explicit(&is_counting, memory_order_acquire) &&
        pthread_atfork(NULL, NULL, count_fork) == 0) {
        atomic_store_explicit(&is_counting, true, memory_order_release);
    }
    const uint64_t forks = atomic_load_explicit(&num_forks, memory_order_relaxed);
    return forks << 32 | (uint32_t)getpid();
}
