/* SPDX-License-Identifier: BSD-3-Clause
 *
 * worker_placement.c: the CPUs of a sleeping worker, narrowed for the moment of its waking.
 */
#include "context/worker_placement.h"

/* Both calls fail, and nothing changes, on machines with more CPUs than a cpu_set_t lists. */
void attni_placement_keep_away(attni_worker_placement *placement, pthread_t worker, int32_t cpu) {
    if (!placement->is_asleep || placement->is_kept_away || cpu < 0 || cpu >= CPU_SETSIZE ||
        pthread_getaffinity_np(worker, sizeof placement->allowed, &placement->allowed) != 0) {
        return;
    }
    cpu_set_t others = placement->allowed;
    CPU_CLR((size_t)cpu, &others);
    placement->cpu = cpu;
    placement->is_kept_away =
        CPU_COUNT(&others) > 0 && pthread_setaffinity_np(worker, sizeof others, &others) == 0;
}

/* Whether a worker kept away has other CPUs than it was left with: somebody else's choice. */
static bool was_moved(const attni_worker_placement *placement) {
    cpu_set_t left = placement->allowed;
    cpu_set_t now;
    CPU_ZERO(&now); /* the memory sanitizer does not see that it is filled */
    CPU_CLR((size_t)placement->cpu, &left);
    return pthread_getaffinity_np(pthread_self(), sizeof now, &now) == 0 && !CPU_EQUAL(&now, &left);
}

void attni_placement_note_awake(attni_worker_placement *placement) {
    placement->is_asleep = false;
    if (placement->is_kept_away && !was_moved(placement)) {
        pthread_setaffinity_np(pthread_self(), sizeof placement->allowed, &placement->allowed);
    }
    placement->is_kept_away = false;
}
