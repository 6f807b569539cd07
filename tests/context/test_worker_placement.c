/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_worker_placement.c: where workers are woken, and that they may run again where they might
 * before, or where others have put them since.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/status.h>

#include "context/thread_pool.h"
#include "context/worker_placement.h"
#include "rendezvous.h"

static cpu_set_t affinity_of(pthread_t thread) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus); /* The memory sanitizer does not see the call below fill it. */
    assert_int_equal(pthread_getaffinity_np(thread, sizeof cpus, &cpus), 0);
    return cpus;
}

static int first_cpu(const cpu_set_t *cpus) {
    int cpu = 0;
    while (!CPU_ISSET((size_t)cpu, cpus)) {
        cpu++;
    }
    return cpu;
}

/* ---- one placement ---- */

typedef struct kept_thread {
    attni_worker_placement placement;
    _Atomic int32_t may_wake;
    cpu_set_t after;
} kept_thread;

static void *sleep_until_kept(void *argument) {
    kept_thread *kept = argument;
    while (atomic_load(&kept->may_wake) == 0) {
        sleep_microseconds(100);
    }
    attni_placement_note_awake(&kept->placement);
    kept->after = affinity_of(pthread_self());
    return NULL;
}

static void a_sleeper_is_kept_away_until_it_is_awake(void **state) {
    (void)state;
    const cpu_set_t before = affinity_of(pthread_self());
    const int cpu = first_cpu(&before);
    kept_thread kept = {.placement = {.is_asleep = true}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, sleep_until_kept, &kept), 0);
    attni_placement_keep_away(&kept.placement, thread, cpu);
    cpu_set_t meanwhile = affinity_of(thread);
    if (CPU_COUNT(&before) == 1) {
        printf("one CPU: nothing to keep away from\n");
    } else {
        assert_false(CPU_ISSET((size_t)cpu, &meanwhile));
        CPU_SET((size_t)cpu, &meanwhile);
    }
    assert_true(CPU_EQUAL(&meanwhile, &before));
    atomic_store(&kept.may_wake, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(CPU_EQUAL(&kept.after, &before));
    assert_false(kept.placement.is_asleep);
}

static void cpus_that_others_give_a_sleeper_are_its_own(void **state) {
    (void)state;
    const cpu_set_t before = affinity_of(pthread_self());
    const int cpu = first_cpu(&before);
    if (CPU_COUNT(&before) == 1) {
        printf("one CPU: nothing to give\n");
        return;
    }
    cpu_set_t given;
    CPU_ZERO(&given);
    CPU_SET((size_t)cpu, &given);
    kept_thread kept = {.placement = {.is_asleep = true}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, sleep_until_kept, &kept), 0);
    attni_placement_keep_away(&kept.placement, thread, cpu);
    assert_true(kept.placement.is_kept_away);
    assert_int_equal(pthread_setaffinity_np(thread, sizeof given, &given), 0);
    atomic_store(&kept.may_wake, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(CPU_EQUAL(&kept.after, &given));
    assert_false(kept.placement.is_kept_away);
}

static void who_is_awake_or_has_one_cpu_is_left_alone(void **state) {
    (void)state;
    const cpu_set_t before = affinity_of(pthread_self());
    const int cpu = first_cpu(&before);
    attni_worker_placement placement = {.is_asleep = false};
    attni_placement_keep_away(&placement, pthread_self(), cpu);
    assert_false(placement.is_kept_away);

    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    assert_int_equal(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
    placement.is_asleep = true;
    attni_placement_keep_away(&placement, pthread_self(), cpu);
    const cpu_set_t after = affinity_of(pthread_self());
    assert_int_equal(pthread_setaffinity_np(pthread_self(), sizeof before, &before), 0);
    assert_false(placement.is_kept_away);
    assert_true(CPU_EQUAL(&after, &one));

    attni_placement_keep_away(&placement, pthread_self(), -1);
    attni_placement_keep_away(&placement, pthread_self(), CPU_SETSIZE);
    assert_false(placement.is_kept_away);
}

/* ---- a pool ---- */

enum { POOL_THREADS = 3, POOL_ROUNDS = 20 };

typedef struct affinity_call {
    _Atomic int32_t arrived;
    _Atomic int32_t met;
    cpu_set_t cpus[POOL_THREADS];
    pid_t threads[POOL_THREADS];
} affinity_call;

static void note_affinity(void *data, int64_t index) {
    affinity_call *call = data;
    call->cpus[index] = affinity_of(pthread_self());
    call->threads[index] = gettid();
    atomic_fetch_add(&call->met, rendezvous(&call->arrived, POOL_THREADS));
}

static void note_any(void *data, int64_t index) {
    affinity_call *call = data;
    call->cpus[index] = affinity_of(pthread_self());
}

/* Waits until a thread of this process sleeps: one that was woken and has not run yet does not. */
static void wait_until_asleep(pid_t thread) {
    char path[64];
    char state = '?';
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    while (state != 'S') {
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
        sleep_microseconds(100);
    }
}

/* In each round all workers had time to fall asleep. */
static void workers_run_where_their_creator_might(void **state) {
    (void)state;
    const cpu_set_t before = affinity_of(pthread_self());
    attni_thread_pool *pool = NULL;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, POOL_THREADS, &pool),
                     ATTN_OK);
    for (int round = 0; round < POOL_ROUNDS; round++) {
        affinity_call call = {0};
        sleep_microseconds(2000);
        attni_thread_pool_run(pool, POOL_THREADS, note_affinity, &call);
        assert_int_equal(atomic_load(&call.met), POOL_THREADS);
        for (int i = 0; i < POOL_THREADS; i++) {
            assert_true(CPU_EQUAL(&call.cpus[i], &before));
        }
    }
    attni_thread_pool_destroy(pool);
}

/* A call that needs one of two workers keeps both away from its CPU; the one that sleeps on is then
 * put there from outside, once both sleep: a worker that is just waking up has looked at its CPUs
 * and may be about to set them. */
static void workers_stay_where_others_put_them(void **state) {
    (void)state;
    const cpu_set_t before = affinity_of(pthread_self());
    if (CPU_COUNT(&before) == 1) {
        printf("one CPU: nothing to choose\n");
        return;
    }
    attni_thread_pool *pool = NULL;
    affinity_call call = {0};
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, POOL_THREADS, &pool),
                     ATTN_OK);
    attni_thread_pool_run(pool, POOL_THREADS, note_affinity, &call);
    assert_int_equal(atomic_load(&call.met), POOL_THREADS);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)first_cpu(&before), &one);
    assert_int_equal(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
    sleep_microseconds(2000);
    affinity_call few = {0};
    attni_thread_pool_run(pool, POOL_THREADS - 1, note_any, &few);
    for (int i = 0; i < POOL_THREADS; i++) {
        if (call.threads[i] != gettid()) {
            wait_until_asleep(call.threads[i]);
        }
        assert_int_equal(sched_setaffinity(call.threads[i], sizeof one, &one), 0);
    }
    for (int round = 0; round < POOL_ROUNDS; round++) {
        affinity_call again = {0};
        sleep_microseconds(2000);
        attni_thread_pool_run(pool, POOL_THREADS, note_affinity, &again);
        assert_int_equal(atomic_load(&again.met), POOL_THREADS);
        for (int i = 0; i < POOL_THREADS; i++) {
            assert_true(CPU_EQUAL(&again.cpus[i], &one));
        }
    }
    attni_thread_pool_destroy(pool);
    assert_int_equal(pthread_setaffinity_np(pthread_self(), sizeof before, &before), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sleeper_is_kept_away_until_it_is_awake),
        cmocka_unit_test(cpus_that_others_give_a_sleeper_are_its_own),
        cmocka_unit_test(who_is_awake_or_has_one_cpu_is_left_alone),
        cmocka_unit_test(workers_run_where_their_creator_might),
        cmocka_unit_test(workers_stay_where_others_put_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
