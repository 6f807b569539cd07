/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_thread_pool.c: what a run of the thread pool promises: every index once, nothing of a job
 * touched after it, no waiting for other callers, and the caller's floating-point settings on every
 * thread.
 */
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <attention/status.h>

#include "context/thread_pool.h"
#include "rendezvous.h"

enum { MOST_THREADS = 8 };

static attni_thread_pool *pool_of(int32_t num_threads) {
    attni_thread_pool *pool = NULL;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, num_threads, &pool),
                     ATTN_OK);
    assert_non_null(pool);
    return pool;
}

/* ---- every index once ---- */

static void count_visit(void *data, int64_t index) {
    _Atomic int32_t *visits = data;
    atomic_fetch_add_explicit(&visits[index], 1, memory_order_relaxed);
}

static void assert_each_visited(const _Atomic int32_t *visits, int64_t count, int32_t expected) {
    for (int64_t i = 0; i < count; i++) {
        const int32_t actual = atomic_load_explicit(&visits[i], memory_order_relaxed);
        if (actual != expected) {
            fail_msg("index %lld of %lld: expected %d visits, got %d", (long long)i,
                     (long long)count, expected, actual);
        }
    }
}

static void check_every_index(int32_t num_threads) {
    static const int64_t counts[] = {0, 1, 2, 3, 7, 1000, 100000};
    attni_thread_pool *pool = pool_of(num_threads);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        /* One element more, which no task may touch. */
        _Atomic int32_t *visits = calloc((size_t)counts[i] + 1, sizeof *visits);
        assert_non_null(visits);
        for (int32_t repeat = 1; repeat <= 3; repeat++) {
            attni_thread_pool_run(pool, counts[i], count_visit, visits);
            assert_each_visited(visits, counts[i], repeat);
        }
        assert_int_equal(atomic_load(&visits[counts[i]]), 0);
        free(visits);
    }
    attni_thread_pool_destroy(pool);
}

static void run_two_threads_visits_every_index_once(void **state) {
    (void)state;
    check_every_index(2);
}

static void run_three_threads_visits_every_index_once(void **state) {
    (void)state;
    check_every_index(3);
}

static void run_eight_threads_visits_every_index_once(void **state) {
    (void)state;
    check_every_index(8);
}

static void run_negative_count_does_nothing(void **state) {
    (void)state;
    attni_thread_pool *pool = pool_of(2);
    _Atomic int32_t visits = 0;
    attni_thread_pool_run(pool, -1, count_visit, &visits);
    attni_thread_pool_run(pool, INT64_MIN, count_visit, &visits);
    assert_int_equal(atomic_load(&visits), 0);
    attni_thread_pool_destroy(pool);
}

/* ---- one job after the other ---- */

/* Lives for one run only. Its sums are plain: each index has its own element. */
struct short_lived_job {
    int64_t number;
    int64_t written[MOST_THREADS];
    _Atomic int32_t strangers; /* tasks that found another job's number */
};

static void write_even(void *data, int64_t index) {
    struct short_lived_job *job = data;
    if (job->number % 2 != 0) {
        atomic_fetch_add(&job->strangers, 1);
    }
    job->written[index] = job->number;
}

static void write_odd(void *data, int64_t index) {
    struct short_lived_job *job = data;
    if (job->number % 2 != 1) {
        atomic_fetch_add(&job->strangers, 1);
    }
    job->written[index] = job->number;
}

/* Two jobs by turns, each with its own task, in memory overwritten as soon as run returns: a worker
 * that is late with a task, an index or a pointer of the job before writes to the wrong one. */
static void check_consecutive_jobs(int32_t num_threads, int64_t num_runs, int64_t pause_every) {
    attni_thread_pool *pool = pool_of(num_threads);
    struct short_lived_job jobs[2] = {{0}};
    for (int64_t run = 0; run < num_runs; run++) {
        struct short_lived_job *job = &jobs[run % 2];
        *job = (struct short_lived_job){.number = run};
        const int64_t count = 2 + run % (MOST_THREADS - 1);
        attni_thread_pool_run(pool, count, run % 2 == 0 ? write_even : write_odd, job);
        assert_int_equal(atomic_load(&job->strangers), 0);
        for (int64_t i = 0; i < MOST_THREADS; i++) {
            const int64_t expected = i < count ? run : 0;
            if (job->written[i] != expected) {
                fail_msg("run %lld, index %lld: expected %lld, got %lld", (long long)run,
                         (long long)i, (long long)expected, (long long)job->written[i]);
            }
        }
        if (pause_every > 0 && run % pause_every == 0) {
            sleep_microseconds(run % 7 *
                               20); /* some workers asleep, some spinning, some in between */
        }
    }
    attni_thread_pool_destroy(pool);
}

static void run_100000_small_jobs_finishes_quickly(void **state) {
    (void)state;
    const int64_t start = now_nanoseconds();
    check_consecutive_jobs(2, 100000, 0);
    const double seconds = (double)(now_nanoseconds() - start) * 1e-9;
    print_message("100000 jobs: %.3f s\n", seconds);
    /* A job costs about a microsecond, a sleep and a wake-up less than 100. Where workers are
     * missed or waited for it is far more. */
    assert_true(seconds < 20.0);
}

static void run_consecutive_jobs_on_more_threads_than_cpus_keep_apart(void **state) {
    (void)state;
    check_consecutive_jobs(MOST_THREADS, 20000, 0);
}

static void run_consecutive_jobs_with_pauses_keep_apart(void **state) {
    (void)state;
    check_consecutive_jobs(3, 10000, 2);
}

/* ---- help from the workers ---- */

struct meeting {
    _Atomic int32_t arrived;
    _Atomic int32_t met;
    int32_t expected;
    pthread_t threads[MOST_THREADS];
    int rounding[MOST_THREADS];
};

static void meet(void *data, int64_t index) {
    struct meeting *meeting = data;
    meeting->threads[index] = pthread_self();
    meeting->rounding[index] = fegetround();
    atomic_fetch_add(&meeting->met, rendezvous(&meeting->arrived, meeting->expected));
}

static void hold_meeting(attni_thread_pool *pool, struct meeting *meeting, int32_t num_threads) {
    *meeting = (struct meeting){.expected = num_threads};
    attni_thread_pool_run(pool, num_threads, meet, meeting);
    assert_int_equal(atomic_load(&meeting->met), num_threads);
}

static void run_has_the_help_of_every_worker_awake_or_asleep(void **state) {
    (void)state;
    struct meeting meeting;
    for (int32_t num_threads = 2; num_threads <= MOST_THREADS; num_threads++) {
        attni_thread_pool *pool = pool_of(num_threads);
        for (int64_t pause = 0; pause <= 5000; pause += 1000) {
            sleep_microseconds(pause);
            hold_meeting(pool, &meeting, num_threads);
        }
        for (int32_t i = 0; i < num_threads; i++) {
            for (int32_t j = 0; j < i; j++) {
                assert_false(pthread_equal(meeting.threads[i], meeting.threads[j]));
            }
        }
        attni_thread_pool_destroy(pool);
    }
}

/* With fewer indices than threads, as many workers as are needed come. */
static void run_fewer_indices_than_threads_still_has_help(void **state) {
    (void)state;
    struct meeting meeting;
    attni_thread_pool *pool = pool_of(MOST_THREADS);
    for (int32_t count = 2; count < MOST_THREADS; count++) {
        sleep_microseconds(3000);
        hold_meeting(pool, &meeting, count);
    }
    attni_thread_pool_destroy(pool);
}

struct slow_job {
    struct meeting meeting;
    pthread_t caller;
    int32_t finished[MOST_THREADS];
};

static void finish_late_unless_caller(void *data, int64_t index) {
    struct slow_job *job = data;
    meet(&job->meeting, index);
    if (!pthread_equal(pthread_self(), job->caller)) {
        sleep_microseconds(10000);
    }
    job->finished[index] = 1;
}

static void run_waits_for_slow_workers(void **state) {
    (void)state;
    attni_thread_pool *pool = pool_of(4);
    for (int32_t repeat = 0; repeat < 20; repeat++) {
        struct slow_job job = {.meeting = {.expected = 4}, .caller = pthread_self()};
        attni_thread_pool_run(pool, 4, finish_late_unless_caller, &job);
        for (int32_t i = 0; i < 4; i++) {
            assert_int_equal(job.finished[i], 1);
        }
    }
    attni_thread_pool_destroy(pool);
}

static void run_gives_every_thread_the_callers_rounding_mode(void **state) {
    (void)state;
    static const int modes[] = {FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST};
    struct meeting meeting;
    attni_thread_pool *pool = pool_of(3);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(fesetround(modes[i]), 0);
        hold_meeting(pool, &meeting, 3);
        const int callers_mode = fegetround();
        fesetround(FE_TONEAREST);
        assert_int_equal(callers_mode, modes[i]);
        for (int32_t j = 0; j < 3; j++) {
            assert_int_equal(meeting.rounding[j], modes[i]);
        }
    }
    attni_thread_pool_destroy(pool);
}

/* ---- a busy pool ---- */

struct nested_job {
    attni_thread_pool *pool;
    pthread_t outer_thread[16];
    _Atomic int32_t visits[16][16];
    _Atomic int32_t elsewhere; /* inner tasks on another thread than their outer task's */
};

struct inner_job {
    struct nested_job *outer;
    int64_t outer_index;
};

static void inner_task(void *data, int64_t index) {
    const struct inner_job *inner = data;
    atomic_fetch_add(&inner->outer->visits[inner->outer_index][index], 1);
    if (!pthread_equal(pthread_self(), inner->outer->outer_thread[inner->outer_index])) {
        atomic_fetch_add(&inner->outer->elsewhere, 1);
    }
}

static void outer_task(void *data, int64_t index) {
    struct nested_job *job = data;
    job->outer_thread[index] = pthread_self();
    struct inner_job inner = {job, index};
    attni_thread_pool_run(job->pool, 16, inner_task, &inner);
}

static void run_within_a_task_runs_inline(void **state) {
    (void)state;
    attni_thread_pool *pool = pool_of(3);
    for (int32_t repeat = 0; repeat < 200; repeat++) {
        struct nested_job job = {.pool = pool};
        attni_thread_pool_run(pool, 16, outer_task, &job);
        assert_int_equal(atomic_load(&job.elsewhere), 0);
        for (int32_t i = 0; i < 16; i++) {
            assert_each_visited(job.visits[i], 16, 1);
        }
    }
    attni_thread_pool_destroy(pool);
}

enum { CONCURRENT_CALLERS = 8, RUNS_PER_CALLER = 2000, ITEMS = 50 };

struct caller {
    attni_thread_pool *pool;
    int64_t wrong;
};

static void square(void *data, int64_t index) {
    int64_t *results = data;
    results[index] += index * index;
}

static void *call_again_and_again(void *argument) {
    struct caller *caller = argument;
    for (int64_t run = 0; run < RUNS_PER_CALLER; run++) {
        int64_t results[ITEMS] = {0};
        attni_thread_pool_run(caller->pool, ITEMS, square, results);
        for (int64_t i = 0; i < ITEMS; i++) {
            caller->wrong += results[i] != i * i;
        }
    }
    return NULL;
}

static void run_concurrent_callers_each_get_their_results(void **state) {
    (void)state;
    attni_thread_pool *pool = pool_of(3);
    pthread_t threads[CONCURRENT_CALLERS];
    struct caller callers[CONCURRENT_CALLERS];
    for (int32_t i = 0; i < CONCURRENT_CALLERS; i++) {
        callers[i] = (struct caller){pool, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, call_again_and_again, &callers[i]), 0);
    }
    for (int32_t i = 0; i < CONCURRENT_CALLERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(callers[i].wrong, 0);
    }
    attni_thread_pool_destroy(pool);
}

struct blocked_job {
    _Atomic int32_t arrived;
    _Atomic int32_t released;
    _Atomic int32_t finished;
};

static void block_until_released(void *data, int64_t index) {
    struct blocked_job *job = data;
    (void)index;
    atomic_fetch_add(&job->arrived, 1);
    const int64_t deadline = now_nanoseconds() + rendezvous_patience_nanoseconds;
    while (!atomic_load(&job->released) && now_nanoseconds() < deadline) {
        sleep_microseconds(100);
    }
    atomic_fetch_add(&job->finished, 1);
}

struct blocked_caller {
    attni_thread_pool *pool;
    struct blocked_job job;
};

static void *run_blocked_job(void *argument) {
    struct blocked_caller *caller = argument;
    attni_thread_pool_run(caller->pool, 2, block_until_released, &caller->job);
    return NULL;
}

static void run_on_a_busy_pool_does_not_wait(void **state) {
    (void)state;
    struct blocked_caller other = {.pool = pool_of(2)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_blocked_job, &other), 0);
    while (atomic_load(&other.job.arrived) < 2) {
        sleep_microseconds(100);
    }
    _Atomic int32_t visits[100] = {0};
    attni_thread_pool_run(other.pool, 100, count_visit, visits);
    assert_int_equal(atomic_load(&other.job.finished), 0);
    assert_each_visited(visits, 100, 1);
    atomic_store(&other.job.released, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    attni_thread_pool_destroy(other.pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_two_threads_visits_every_index_once),
        cmocka_unit_test(run_three_threads_visits_every_index_once),
        cmocka_unit_test(run_eight_threads_visits_every_index_once),
        cmocka_unit_test(run_negative_count_does_nothing),
        cmocka_unit_test(run_100000_small_jobs_finishes_quickly),
        cmocka_unit_test(run_consecutive_jobs_on_more_threads_than_cpus_keep_apart),
        cmocka_unit_test(run_consecutive_jobs_with_pauses_keep_apart),
        cmocka_unit_test(run_has_the_help_of_every_worker_awake_or_asleep),
        cmocka_unit_test(run_fewer_indices_than_threads_still_has_help),
        cmocka_unit_test(run_waits_for_slow_workers),
        cmocka_unit_test(run_gives_every_thread_the_callers_rounding_mode),
        cmocka_unit_test(run_within_a_task_runs_inline),
        cmocka_unit_test(run_concurrent_callers_each_get_their_results),
        cmocka_unit_test(run_on_a_busy_pool_does_not_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
