/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread_trial.c: see thread_trial.h.
 */
#include "blas_library/thread_trial.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/checked_size.h"
#include "base/cpu_count.h"

/* More than OpenBLAS's packages are built for. */
enum { MOST_THREADS = 256 };

/* Positive, or 0 where the variable is not set or says nothing. */
static long number_in(const char *variable) {
    const char *text = getenv(variable);
    const long number = text != NULL ? strtol(text, NULL, 10) : 0;
    return attni_max(0, number);
}

static long count_blas_threads(void) {
    static const char *const variables[] = {"OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS",
                                            "OMP_NUM_THREADS"};
    const long cpus = attni_min(attni_cpu_affinity_count(), MOST_THREADS);
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; ++i) {
        const long number = number_in(variables[i]);
        if (number > 0) {
            return attni_min(number, cpus);
        }
    }
    return cpus;
}

/* The threads of a trial live until the starter gives up the mutex. */
static void *wait_for_end(void *mutex) {
    pthread_mutex_lock(mutex);
    pthread_mutex_unlock(mutex);
    return NULL;
}

bool attni_can_start_blas_threads(void) {
    pthread_t threads[MOST_THREADS];
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    const long wanted = count_blas_threads() - 1;
    long started = 0;
    pthread_mutex_lock(&mutex);
    while (started < wanted && pthread_create(&threads[started], NULL, wait_for_end, &mutex) == 0) {
        ++started;
    }
    pthread_mutex_unlock(&mutex);
    for (long i = 0; i < started; ++i) {
        pthread_join(threads[i], NULL);
    }
    pthread_mutex_destroy(&mutex);
    return started == wanted;
}
