/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rendezvous.h: a task that returns only once as many threads as there are indices are inside it,
 * so that each index is on a thread of its own and nothing is left to the scheduler.
 */
#ifndef TESTS_CONTEXT_RENDEZVOUS_H
#define TESTS_CONTEXT_RENDEZVOUS_H

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

static const int64_t rendezvous_patience_nanoseconds = INT64_C(20000000000);

static inline int64_t now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void sleep_microseconds(int64_t microseconds) {
    const struct timespec pause = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

/* Counts this thread in and waits for the rest. Gives up, so that the test fails instead of
 * hanging; returns 1 if all met, else 0. */
static inline int rendezvous(_Atomic int32_t *arrived, int32_t expected) {
    const int64_t deadline = now_nanoseconds() + rendezvous_patience_nanoseconds;
    atomic_fetch_add(arrived, 1);
    while (atomic_load(arrived) < expected) {
        if (now_nanoseconds() > deadline) {
            return 0;
        }
        sleep_microseconds(20);
    }
    return 1;
}

#endif
