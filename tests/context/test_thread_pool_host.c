/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_thread_pool_host.c: a thread pool as a guest in its process: it takes no signals, and a fork
 * leaves both processes whole. Linked so that the call named __wrap_ here comes from this file.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/status.h>

#include "context/thread_pool.h"
#include "rendezvous.h"
#include "support/end_of_child.h"

/* ---- signals ---- */

enum { SIGNAL_TEST_THREADS = 4 };

struct roll_call {
    _Atomic int32_t arrived;
    _Atomic int32_t met;
    pthread_t threads[SIGNAL_TEST_THREADS];
    sigset_t blocked[SIGNAL_TEST_THREADS];
};

static void answer_roll_call(void *data, int64_t index) {
    struct roll_call *call = data;
    call->threads[index] = pthread_self();
    pthread_sigmask(SIG_SETMASK, NULL, &call->blocked[index]);
    atomic_fetch_add(&call->met, rendezvous(&call->arrived, SIGNAL_TEST_THREADS));
}

/* All that can be blocked: not the two nobody can, nor those the C library, or an emulator around
 * this process, keeps for itself. */
static sigset_t every_blockable_signal(void) {
    sigset_t every_signal;
    sigset_t before;
    sigset_t blocked;
    sigfillset(&every_signal);
    pthread_sigmask(SIG_SETMASK, &every_signal, &before);
    pthread_sigmask(SIG_SETMASK, &before, &blocked);
    assert_int_equal(sigismember(&blocked, SIGTERM), 1);
    assert_int_equal(sigismember(&blocked, SIGRTMIN), 1);
    return blocked;
}

static void workers_block_every_signal(void **state) {
    (void)state;
    attni_thread_pool *pool = NULL;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, SIGNAL_TEST_THREADS, &pool),
                     ATTN_OK);
    struct roll_call call = {0};
    attni_thread_pool_run(pool, SIGNAL_TEST_THREADS, answer_roll_call, &call);
    assert_int_equal(atomic_load(&call.met), SIGNAL_TEST_THREADS);
    const sigset_t expected = every_blockable_signal();
    int num_workers = 0;
    for (int32_t i = 0; i < SIGNAL_TEST_THREADS; i++) {
        if (pthread_equal(call.threads[i], pthread_self())) {
            continue;
        }
        num_workers++;
        for (int number = 1; number <= SIGRTMAX; number++) {
            if (sigismember(&expected, number) == 1 && sigismember(&call.blocked[i], number) != 1) {
                fail_msg("thread %d: signal %d is not blocked", i, number);
            }
        }
    }
    assert_int_equal(num_workers, SIGNAL_TEST_THREADS - 1);
    attni_thread_pool_destroy(pool);
}

/* ---- fork ---- */

/* Makes a thread stay in the locks it takes, so that a fork finds them taken. */
static _Atomic int32_t lingers_in_locks;

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
    const int result = __real_pthread_mutex_lock(mutex);
    if (atomic_load(&lingers_in_locks)) {
        sleep_microseconds(300);
    }
    return result;
}

enum { NUM_ITEMS = 64, NUM_CHILDREN = 60 };

struct host {
    attni_thread_pool *pool;
    _Atomic int32_t stop;
    int64_t wrong;
    int64_t runs;
};

static void add_index(void *data, int64_t index) {
    int64_t *results = data;
    results[index] += index + 1;
}

/* Returns the number of wrong results of one run. */
static int64_t run_and_check(attni_thread_pool *pool) {
    int64_t results[NUM_ITEMS] = {0};
    int64_t wrong = 0;
    attni_thread_pool_run(pool, NUM_ITEMS, add_index, results);
    for (int64_t i = 0; i < NUM_ITEMS; i++) {
        wrong += results[i] != i + 1;
    }
    return wrong;
}

/* Keeps the pool in all its states by turns: running, spinning, falling asleep with the lock held,
 * asleep, waking. */
static void *keep_pool_busy(void *argument) {
    struct host *host = argument;
    while (!atomic_load(&host->stop)) {
        host->wrong += run_and_check(host->pool);
        host->runs++;
        sleep_microseconds(host->runs % 4 * 25);
    }
    return NULL;
}

static void use_and_destroy_in_child(attni_thread_pool *pool) {
    alarm(30); /* a child that hangs is killed, and seen to have been */
    int64_t wrong = 0;
    for (int32_t i = 0; i < 10; i++) {
        wrong += run_and_check(pool);
    }
    attni_thread_pool_destroy(pool);
    end_of_child(wrong == 0 ? 0 : 1);
}

static void assert_child_succeeds(pid_t child) {
    int how = 0;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
        fail_msg("forked child: expected exit status 0, got wait status 0x%x", (unsigned)how);
    }
}

static void fork_while_the_pool_works_leaves_child_and_parent_correct(void **state) {
    (void)state;
    struct host host = {0};
    pthread_t thread;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, 3, &host.pool), ATTN_OK);
    atomic_store(&lingers_in_locks, 1);
    assert_int_equal(pthread_create(&thread, NULL, keep_pool_busy, &host), 0);
    for (int32_t i = 0; i < NUM_CHILDREN; i++) {
        sleep_microseconds(i * 17);
        const pid_t child = fork();
        if (child == 0) {
            use_and_destroy_in_child(host.pool);
        }
        assert_child_succeeds(child);
    }
    atomic_store(&lingers_in_locks, 0);
    atomic_store(&host.stop, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(host.runs > 0);
    assert_int_equal(host.wrong, 0);
    assert_int_equal(run_and_check(host.pool), 0);
    attni_thread_pool_destroy(host.pool);
}

/* The child runs on its own thread only: another would have another id. */
static void note_thread(void *data, int64_t index) {
    pid_t *ids = data;
    ids[index] = (pid_t)syscall(SYS_gettid);
}

static void run_in_a_forked_child_is_on_the_calling_thread(void **state) {
    (void)state;
    attni_thread_pool *pool = NULL;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, 3, &pool), ATTN_OK);
    const pid_t child = fork();
    if (child == 0) {
        pid_t ids[NUM_ITEMS] = {0};
        alarm(30);
        attni_thread_pool_run(pool, NUM_ITEMS, note_thread, ids);
        int32_t elsewhere = 0;
        for (int32_t i = 0; i < NUM_ITEMS; i++) {
            elsewhere += ids[i] != getpid();
        }
        end_of_child(elsewhere == 0 ? 0 : 1);
    }
    assert_child_succeeds(child);
    attni_thread_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_block_every_signal),
        cmocka_unit_test(fork_while_the_pool_works_leaves_child_and_parent_correct),
        cmocka_unit_test(run_in_a_forked_child_is_on_the_calling_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
