/* SPDX-License-Identifier: BSD-3-Clause
 *
 * openmp_threads.c: an attn_parallel_for_fn on the threads of OpenMP, for calls amidst a program
 * that computes on those: they spin for some milliseconds after each of its parallel regions, on
 * the very processors where threads of another pool would have to run.
 */
#include <fenv.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "call_state.h"

/* What compilers call for "#pragma omp parallel": libgomp's GOMP_parallel, which the OpenMP of LLVM
 * and Intel's has too. */
typedef void (*parallel_region)(void (*part)(void *data), void *data, unsigned num_threads,
                                unsigned flags);

/* Of the process, as the threads are; NULL until it was handed over. */
static _Atomic(parallel_region) region;

struct job {
    attn_task_fn task;
    void *data;
    int64_t count;
    _Atomic int64_t next;
    pthread_t caller;
    fenv_t environment; /* the caller's: its rounding, and whether subnormal numbers are flushed */
};

static void draw_tasks(struct job *job) {
    for (;;) {
        const int64_t index = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (index >= job->count) {
            return;
        }
        job->task(job->data, index);
    }
}

/* Run by each thread of the region, the caller among them. */
static void run_part(void *data) {
    struct job *job = data;
    if (pthread_equal(pthread_self(), job->caller)) {
        draw_tasks(job);
        return;
    }
    fenv_t own;
    fegetenv(&own);
    fesetenv(&job->environment);
    draw_tasks(job);
    fesetenv(&own);
}

/* `state` is the number of threads, not an address. */
static int32_t openmp_parallel_for(void *state, int64_t count, attn_task_fn task, void *data) {
    const parallel_region run = atomic_load_explicit(&region, memory_order_relaxed);
    struct job job = {.task = task, .data = data, .count = count, .caller = pthread_self()};
    atomic_init(&job.next, 0);
    fegetenv(&job.environment);
    const uintptr_t num_threads = (uintptr_t)state;
    const int64_t wanted = count < (int64_t)num_threads ? count : (int64_t)num_threads;
    run(run_part, &job, (unsigned)wanted, 0);
    return 0;
}

PyObject *call_bind_openmp(void *parallel) {
    atomic_store_explicit(&region, (parallel_region)(uintptr_t)parallel, memory_order_relaxed);
    return PyLong_FromVoidPtr((void *)(uintptr_t)openmp_parallel_for);
}
