/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread_pool.c: workers, the job they share, and how they wait for the next one.
 *
 * A call of run is a job. The caller opens it, draws indices like any worker, closes it when none
 * are left, and waits until nobody is inside. Workers enter a job only while it is open, and never
 * have to: one that is asleep, late or without a CPU costs the caller nothing but its help. All of
 * this is one atomic word, so that "is it still open?" and entering are one step: a worker can
 * neither take an index with another job's task nor use `data` after run has returned.
 *
 * Memory order, in three sentences. Opening a job releases its fields, and entering it acquires
 * them. Leaving releases what the tasks wrote, and the caller acquires it by seeing the count of
 * workers inside at zero; every change in between is a read-modify-write, so it continues those
 * release sequences. Only falling asleep needs more (see wake_workers).
 */
#include "context/thread_pool.h"

#include <attention/status.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/process_identity.h"
#include "context/worker_placement.h"

/* The parts of the state word. The upper half is the number of the job, counted from 1. It wraps: a
 * worker that slept through exactly 2^32 jobs misses one more. */
#define WORKERS_INSIDE UINT64_C(0x0000ffff)
#define JOB_OPEN UINT64_C(0x00010000)      /* workers may enter */
#define CALLER_SLEEPS UINT64_C(0x00020000) /* the last worker to leave wakes the caller */
#define STOPPING UINT64_C(0x00040000)      /* the pool is being destroyed */
#define JOB_NUMBER_SHIFT 32

/* How long a thread spins before it sleeps: about the price of being woken (20 to 50 microseconds),
 * so that a wait costs at most about twice the least possible, whatever its length. */
enum { SPIN_NANOSECONDS = 50000, PAUSES_PER_CLOCK_READING = 32 };

typedef struct pool_worker {
    attni_thread_pool *pool;
    pthread_t thread;
    attni_worker_placement placement;
} pool_worker;

struct attni_thread_pool {
    attni_allocator allocator;
    int32_t most_workers; /* that there is room for */
    int32_t num_workers;

    /* In any other process, a forked child, the workers do not exist and the mutex is in any
     * state. */
    uint64_t creator;

    /* Guards the moment between a thread's last look at `state` and its wait, and the workers'
     * placements. */
    pthread_mutex_t sleep_mutex;
    pthread_cond_t work_arrived;
    pthread_cond_t job_left;

    atomic_flag busy; /* held by the caller whose job it is */

    /* The job: written while nobody is inside and none is open, read inside only. */
    attni_task task;
    void *data;
    uint64_t count;
    fenv_t float_environment;

    /* The two contended words have a cache line each. */
    _Alignas(ATTNI_ALIGNMENT) _Atomic uint64_t state;
    _Atomic int32_t num_sleepers;
    _Alignas(ATTNI_ALIGNMENT) _Atomic uint64_t next_index;

    _Alignas(ATTNI_ALIGNMENT) pool_worker workers[];
};

/* ---- waiting ---- */

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* `yield` does nothing on most of these CPUs */
#endif
}

static int64_t monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool nobody_inside(uint64_t state, uint64_t unused) {
    (void)unused;
    return (state & WORKERS_INSIDE) == 0;
}

/* `seen` is the number of the last job the worker entered or found closed. */
static bool has_news(uint64_t state, uint64_t seen) {
    return (state & STOPPING) != 0 ||
           ((state & JOB_OPEN) != 0 && state >> JOB_NUMBER_SHIFT != seen);
}

/* Spins until holds(state, seen), but not for long: the state returned tells. With `yields` the CPU
 * goes to whoever else wants it. */
static uint64_t spin_until(attni_thread_pool *pool, bool (*holds)(uint64_t, uint64_t),
                           uint64_t seen, bool yields) {
    uint64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);
    if (holds(state, seen)) {
        return state;
    }
    const int64_t deadline = monotonic_nanoseconds() + SPIN_NANOSECONDS;
    do {
        if (yields) {
            sched_yield();
        }
        for (int32_t i = 0; i < PAUSES_PER_CLOCK_READING && !holds(state, seen); i++) {
            pause_briefly();
            state = atomic_load_explicit(&pool->state, memory_order_acquire);
        }
    } while (!holds(state, seen) && monotonic_nanoseconds() < deadline);
    return state;
}

/* Sleeps until woken, which may be for nothing; not at all if there is news already. */
static void sleep_once(pool_worker *worker, uint64_t seen) {
    attni_thread_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->sleep_mutex);
    worker->placement.is_asleep = true;
    atomic_fetch_add_explicit(&pool->num_sleepers, 1, memory_order_seq_cst);
    if (!has_news(atomic_load_explicit(&pool->state, memory_order_seq_cst), seen)) {
        pthread_cond_wait(&pool->work_arrived, &pool->sleep_mutex);
    }
    atomic_fetch_sub_explicit(&pool->num_sleepers, 1, memory_order_relaxed);
    attni_placement_note_awake(&worker->placement);
    pthread_mutex_unlock(&pool->sleep_mutex);
}

/* Wakes as many workers as `wanted` exceeds those awake. A worker counts itself asleep and then
 * looks at the state; the caller opened the job and now looks at that count. With all four
 * sequentially consistent, one of the two sees the other: no job is slept through. The mutex makes
 * sure that a worker which had looked before is waiting by the time it is woken. */
static void wake_workers(attni_thread_pool *pool, int64_t wanted) {
    const int32_t sleepers = atomic_load_explicit(&pool->num_sleepers, memory_order_seq_cst);
    const int64_t missing = wanted - (pool->num_workers - sleepers);
    if (sleepers == 0 || missing <= 0) {
        return;
    }
    const int32_t cpu = sched_getcpu();
    pthread_mutex_lock(&pool->sleep_mutex);
    for (int32_t i = 0; i < pool->num_workers; i++) {
        attni_placement_keep_away(&pool->workers[i].placement, pool->workers[i].thread, cpu);
    }
    pthread_mutex_unlock(&pool->sleep_mutex);
    if (missing >= sleepers) {
        pthread_cond_broadcast(&pool->work_arrived);
        return;
    }
    for (int64_t i = 0; i < missing; i++) {
        pthread_cond_signal(&pool->work_arrived);
    }
}

/* ---- the job ---- */

static void open_job(attni_thread_pool *pool, int64_t count, attni_task task, void *data) {
    pool->task = task;
    pool->data = data;
    pool->count = (uint64_t)count;
    fegetenv(&pool->float_environment);
    atomic_store_explicit(&pool->next_index, 0, memory_order_relaxed);
    /* A plain store will do: with the job before closed and left, only the holder of `busy` changes
     * the state. */
    const uint64_t before = atomic_load_explicit(&pool->state, memory_order_relaxed);
    const uint64_t number = (before >> JOB_NUMBER_SHIFT) + 1;
    atomic_store_explicit(&pool->state, number << JOB_NUMBER_SHIFT | JOB_OPEN,
                          memory_order_seq_cst);
}

/* Runs tasks until there are no more indices. The counter orders nothing, it only deals out
 * numbers, each once. Every thread overshoots by one at most, and an unsigned counter has room for
 * that behind any int64_t. */
static void draw_indices(attni_thread_pool *pool) {
    const attni_task task = pool->task;
    void *const data = pool->data;
    const uint64_t count = pool->count;
    for (;;) {
        const uint64_t index =
            atomic_fetch_add_explicit(&pool->next_index, 1, memory_order_relaxed);
        if (index >= count) {
            return;
        }
        task(data, (int64_t)index);
    }
}

/* Closes the job to workers that are late and returns when those inside have left. */
static void close_job(attni_thread_pool *pool) {
    uint64_t state = atomic_fetch_and_explicit(&pool->state, ~JOB_OPEN, memory_order_acquire);
    if (!nobody_inside(state, 0)) {
        state = spin_until(pool, nobody_inside, 0, false);
    }
    if (nobody_inside(state, 0)) {
        return;
    }
    pthread_mutex_lock(&pool->sleep_mutex);
    state = atomic_fetch_or_explicit(&pool->state, CALLER_SLEEPS, memory_order_acquire);
    while (!nobody_inside(state, 0)) {
        pthread_cond_wait(&pool->job_left, &pool->sleep_mutex);
        state = atomic_load_explicit(&pool->state, memory_order_acquire);
    }
    pthread_mutex_unlock(&pool->sleep_mutex);
}

/* Enters the job that is open, whichever that is by now; false if none is. */
static bool enter_job(attni_thread_pool *pool, uint64_t *state) {
    while ((*state & JOB_OPEN) != 0) {
        if (atomic_compare_exchange_weak_explicit(&pool->state, state, *state + 1,
                                                  memory_order_acquire, memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

/* From the first line on, run may return; the pool is still there, because destroy joins first. */
static void leave_job(attni_thread_pool *pool) {
    const uint64_t state = atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release) - 1;
    if ((state & CALLER_SLEEPS) != 0 && nobody_inside(state, 0)) {
        /* The caller set the flag with the mutex held, so once it can be had, the caller is
         * waiting. */
        pthread_mutex_lock(&pool->sleep_mutex);
        pthread_mutex_unlock(&pool->sleep_mutex);
        pthread_cond_signal(&pool->job_left);
    }
}

/* Waits for a job not seen yet or the end. A worker without work yields while it spins: where it
 * shares a CPU with the caller, which happens whenever there are fewer CPUs than threads, the
 * caller would otherwise stand still that long. */
static uint64_t wait_for_news(pool_worker *worker, uint64_t seen) {
    attni_thread_pool *pool = worker->pool;
    uint64_t state = spin_until(pool, has_news, seen, true);
    while (!has_news(state, seen)) {
        sleep_once(worker, seen);
        state = spin_until(pool, has_news, seen, true);
    }
    return state;
}

static void *worker_main(void *argument) {
    pool_worker *worker = argument;
    attni_thread_pool *pool = worker->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->sleep_mutex);
    attni_placement_note_awake(&worker->placement);
    pthread_mutex_unlock(&pool->sleep_mutex);
    for (;;) {
        uint64_t state = wait_for_news(worker, seen);
        if ((state & STOPPING) != 0) {
            return NULL;
        }
        if (enter_job(pool, &state)) {
            fesetenv(&pool->float_environment);
            draw_indices(pool);
            leave_job(pool);
        }
        seen = state >> JOB_NUMBER_SHIFT;
    }
}

static void run_inline(int64_t count, attni_task task, void *data) {
    for (int64_t index = 0; index < count; index++) {
        task(data, index);
    }
}

void attni_thread_pool_run(attni_thread_pool *pool, int64_t count, attni_task task, void *data) {
    /* The order matters: `busy` is taken last, and only by who gives it back. Its acquire and
     * release pass the job's fields on from caller to caller. A nested call finds it taken, by its
     * own caller. */
    if (count <= 1 || attni_process_identity() != pool->creator ||
        atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
        run_inline(count, task, data);
        return;
    }
    open_job(pool, count, task, data);
    wake_workers(pool, count - 1);
    draw_indices(pool);
    close_job(pool);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

/* ---- life ---- */

static size_t pool_bytes(int32_t num_workers) {
    return sizeof(attni_thread_pool) + (size_t)num_workers * sizeof(pool_worker);
}

static void free_pool(attni_thread_pool *pool) {
    const attni_allocator allocator = pool->allocator;
    attni_deallocate(&allocator, pool, pool_bytes(pool->most_workers));
}

static void destroy_locks(attni_thread_pool *pool) {
    pthread_cond_destroy(&pool->job_left);
    pthread_cond_destroy(&pool->work_arrived);
    pthread_mutex_destroy(&pool->sleep_mutex);
}

static bool create_locks(attni_thread_pool *pool) {
    if (pthread_mutex_init(&pool->sleep_mutex, NULL) != 0) {
        return false;
    }
    if (pthread_cond_init(&pool->work_arrived, NULL) != 0) {
        pthread_mutex_destroy(&pool->sleep_mutex);
        return false;
    }
    if (pthread_cond_init(&pool->job_left, NULL) != 0) {
        pthread_cond_destroy(&pool->work_arrived);
        pthread_mutex_destroy(&pool->sleep_mutex);
        return false;
    }
    return true;
}

static bool start_worker(pool_worker *worker, attni_thread_pool *pool) {
    *worker = (pool_worker){.pool = pool, .placement = {.is_asleep = true}};
    if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
        return false;
    }
    attni_placement_keep_away(&worker->placement, worker->thread, sched_getcpu());
    return true;
}

/* Starts the workers and returns how many could be. They inherit the signal mask, so the caller's
 * is changed around it. A new thread is placed like one that is woken: it starts where its creator
 * runs, and waits for the mutex. */
static int32_t start_workers(attni_thread_pool *pool) {
    sigset_t every_signal;
    sigset_t callers_mask;
    sigfillset(&every_signal);
    pthread_sigmask(SIG_SETMASK, &every_signal, &callers_mask);
    pthread_mutex_lock(&pool->sleep_mutex);
    int32_t started = 0;
    while (started < pool->most_workers && start_worker(&pool->workers[started], pool)) {
        started++;
    }
    pool->num_workers = started;
    pthread_mutex_unlock(&pool->sleep_mutex);
    pthread_sigmask(SIG_SETMASK, &callers_mask, NULL);
    return started;
}

/* Stops and joins the first `started` workers. The mutex orders the flag before the last look of a
 * worker about to sleep; one that spins sees it soon. Nothing is handed over, hence relaxed. */
static void stop_workers(attni_thread_pool *pool, int32_t started) {
    pthread_mutex_lock(&pool->sleep_mutex);
    atomic_fetch_or_explicit(&pool->state, STOPPING, memory_order_relaxed);
    pthread_mutex_unlock(&pool->sleep_mutex);
    pthread_cond_broadcast(&pool->work_arrived);
    for (int32_t i = 0; i < started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
}

static int32_t create(const attni_allocator *allocator, int32_t num_workers, int32_t fewest_workers,
                      attni_thread_pool **pool) {
    *pool = NULL;
    attni_thread_pool *made = attni_allocate(allocator, pool_bytes(num_workers));
    if (made == NULL) {
        return ATTN_ERROR_MEMORY;
    }
    made->allocator = *allocator;
    made->creator = attni_process_identity();
    made->most_workers = num_workers;
    atomic_flag_clear_explicit(&made->busy, memory_order_relaxed);
    atomic_init(&made->state, 0);
    atomic_init(&made->num_sleepers, 0);
    atomic_init(&made->next_index, 0);
    if (!create_locks(made)) {
        free_pool(made);
        return ATTN_ERROR_THREAD;
    }
    const int32_t started = start_workers(made);
    if (started < fewest_workers) {
        stop_workers(made, started);
        destroy_locks(made);
        free_pool(made);
        return ATTN_ERROR_THREAD;
    }
    *pool = made;
    return ATTN_OK;
}

int32_t attni_thread_pool_create(const attni_allocator *allocator, int32_t num_threads,
                                 attni_thread_pool **pool) {
    return create(allocator, num_threads - 1, num_threads - 1, pool);
}

int32_t attni_thread_pool_create_some(const attni_allocator *allocator, int32_t most_threads,
                                      attni_thread_pool **pool) {
    return create(allocator, most_threads - 1, 0, pool);
}

int32_t attni_thread_pool_size(const attni_thread_pool *pool) {
    return pool->num_workers + 1;
}

void attni_thread_pool_destroy(attni_thread_pool *pool) {
    if (pool == NULL) {
        return;
    }
    if (attni_process_identity() == pool->creator) {
        stop_workers(pool, pool->num_workers);
        destroy_locks(pool);
    }
    free_pool(pool);
}
