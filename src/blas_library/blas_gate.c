/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_gate.c: see blas_gate.h.
 */
#include "blas_library/blas_gate.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/process_identity.h"
#include "base/process_once.h"
#include "base/thread_value.h"

/* More than there may be callers. */
enum { SHUT = 1 << 16 };

/* How many callers are inside, and SHUT more while a thread forks; who waits to get in, or, to
 * fork, for all to leave. */
static atomic_int inside;
static atomic_int waiting;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;

/* Held while a thread forks. */
static pthread_mutex_t fork_mutex = PTHREAD_MUTEX_INITIALIZER;

static attni_process_once once;
static _Atomic uint64_t first_process; /* to get inside; 0 before */
/* Not NULL for a thread that is inside or waits to be. Where it cannot be kept for a thread, a fork
 * from within that thread's call waits for ever. */
static attni_thread_value calling = ATTNI_THREAD_VALUE(NULL);

/* A forked child must not wait for its parent's callers. */
static void open_anew(void) {
    pthread_mutex_init(&fork_mutex, NULL);
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&left, NULL);
    atomic_store(&waiting, 0);
    atomic_store(&inside, 0);
}

/* ---- fork ---- */

/* OpenBLAS ends its threads before a fork, and waits for ever if one of them is computing (0.3.21,
 * measured); its child waits for locks that were held. So nobody is inside then. A fork from within
 * a call, as a signal handler's might be, cannot wait for that call to end. */
static void shut(void) {
    if (attni_thread_value_get(&calling) != NULL) {
        return;
    }
    attni_once_per_process(&once, open_anew);
    pthread_mutex_lock(&fork_mutex);
    atomic_fetch_add(&inside, SHUT);
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&waiting, 1);
    while (atomic_load(&inside) > SHUT) {
        pthread_cond_wait(&left, &mutex);
    }
    atomic_fetch_sub(&waiting, 1);
    pthread_mutex_unlock(&mutex);
}

static void open_again(void) {
    if (attni_thread_value_get(&calling) != NULL) {
        return;
    }
    atomic_fetch_sub(&inside, SHUT);
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&left);
    pthread_mutex_unlock(&mutex);
    pthread_mutex_unlock(&fork_mutex);
}

/* Handlers run the last one registered first, so BLAS's own, of when it was loaded, come after
 * these. A child has them too, and lets itself in by attni_once_per_process. Where memory is out
 * there are none, and a fork is what BLAS makes of it. */
static void open_first(void) {
    open_anew();
    uint64_t nobody = 0;
    if (atomic_compare_exchange_strong(&first_process, &nobody, attni_process_identity())) {
        (void)pthread_atfork(shut, open_again, NULL);
    }
}

bool attni_blas_gate_is_inherited(void) {
    const uint64_t first = atomic_load(&first_process);
    return first != 0 && first != attni_process_identity();
}

/* ---- callers ---- */

static bool try_enter(int most) {
    int callers = atomic_load(&inside);
    while (callers < most) {
        if (atomic_compare_exchange_weak(&inside, &callers, callers + 1)) {
            return true;
        }
    }
    return false;
}

void attni_blas_gate_enter(int most_callers) {
    attni_once_per_process(&once, open_first);
    (void)attni_thread_value_set(&calling, &calling);
    while (!try_enter(most_callers)) {
        pthread_mutex_lock(&mutex);
        /* Counted as waiting before the last look, so that whoever leaves after it wakes this one.
         */
        atomic_fetch_add(&waiting, 1);
        while (atomic_load(&inside) >= most_callers) {
            pthread_cond_wait(&left, &mutex);
        }
        atomic_fetch_sub(&waiting, 1);
        pthread_mutex_unlock(&mutex);
    }
}

void attni_blas_gate_leave(void) {
    const int before = atomic_fetch_sub(&inside, 1);
    if (atomic_load(&waiting) > 0) {
        pthread_mutex_lock(&mutex);
        /* One may come in; or one wants to fork, and which of those that wait it is nobody knows.
         */
        if (before > SHUT) {
            pthread_cond_broadcast(&left);
        } else {
            pthread_cond_signal(&left);
        }
        pthread_mutex_unlock(&mutex);
    }
    (void)attni_thread_value_set(&calling, NULL);
}
