/* SPDX-License-Identifier: BSD-3-Clause
 *
 * process_once.c: see process_once.h.
 */
#include "base/process_once.h"

#include <sched.h>

#include "base/process_identity.h"

void attni_once_per_process(attni_process_once *once, void (*make)(void)) {
    const uint64_t process = attni_process_identity();
    if (atomic_load(&once->made_by) == process) {
        return;
    }
    uint64_t before = atomic_load(&once->claimed_by);
    if (before != process && atomic_compare_exchange_strong(&once->claimed_by, &before, process)) {
        make();
        atomic_store(&once->made_by, process);
    }
    while (atomic_load(&once->made_by) != process) {
        sched_yield();
    }
}
