/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_thread_pool_lifetime.c: making and destroying a thread pool, with failures of threads, locks
 * and memory injected. Linked so that the calls named __wrap_ here come from this file.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/status.h>

#include "context/thread_pool.h"
#include "rendezvous.h"

/* ---- injected failures ---- */

/* Calls of a kind still to succeed before one fails; negative: none fails. */
static int32_t threads_before_failure = -1;
static int32_t locks_before_failure = -1;

static int fails_now(int32_t *before_failure) {
    if (*before_failure < 0) {
        return 0;
    }
    return (*before_failure)-- == 0;
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    return fails_now(&threads_before_failure)
               ? EAGAIN
               : __real_pthread_create(thread, attributes, start, argument);
}

int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
    return fails_now(&locks_before_failure) ? ENOMEM : __real_pthread_mutex_init(mutex, attributes);
}

int __real_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes) {
    return fails_now(&locks_before_failure) ? ENOMEM
                                            : __real_pthread_cond_init(condition, attributes);
}

/* An allocator that knows what is outstanding. */
struct ledger {
    int64_t num_blocks;
    int64_t num_bytes;
    int32_t refuses;
};

static void *allocate_on_ledger(void *state, size_t bytes, size_t alignment) {
    struct ledger *ledger = state;
    if (ledger->refuses) {
        return NULL;
    }
    ledger->num_blocks++;
    ledger->num_bytes += (int64_t)bytes;
    return attni_system_allocator.allocate(NULL, bytes, alignment);
}

static void deallocate_on_ledger(void *state, void *memory, size_t bytes, size_t alignment) {
    struct ledger *ledger = state;
    ledger->num_blocks--;
    ledger->num_bytes -= (int64_t)bytes;
    attni_system_allocator.deallocate(NULL, memory, bytes, alignment);
}

static attni_allocator ledger_allocator(struct ledger *ledger) {
    return (attni_allocator){allocate_on_ledger, deallocate_on_ledger, ledger};
}

static void assert_all_freed(const struct ledger *ledger) {
    assert_int_equal(ledger->num_blocks, 0);
    assert_int_equal(ledger->num_bytes, 0);
}

/* ---- looking at the process ---- */

static int32_t count_threads(void) {
    int32_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (const struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        count += entry->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* The threads of this process that are not a pool's. */
static int32_t threads_at_rest;

/* A joined thread is listed for a moment longer, until the kernel has done away with it. */
static void assert_thread_count_becomes(int32_t expected) {
    for (int32_t attempt = 0; count_threads() != expected && attempt < 1000; attempt++) {
        sleep_microseconds(1000);
    }
    assert_int_equal(count_threads(), expected);
}

static void assert_mask_is(const sigset_t *expected) {
    sigset_t actual;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &actual), 0);
    for (int signal_number = 1; signal_number <= SIGRTMAX; signal_number++) {
        if (sigismember(&actual, signal_number) != sigismember(expected, signal_number)) {
            fail_msg("signal %d: expected blocked %d, got %d", signal_number,
                     sigismember(expected, signal_number), sigismember(&actual, signal_number));
        }
    }
}

/* A mask that is neither empty nor full, so that both ways of forgetting it show. */
static sigset_t set_peculiar_mask(void) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGWINCH);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
    return mask;
}

/* ---- creation ---- */

/* Some tools start a thread of their own with the program's first; it must not be counted as the
 * pool's. The smallest count, since the pool's joined thread may still be listed in others. */
static int count_threads_at_rest(void **state) {
    (void)state;
    attni_thread_pool *pool = NULL;
    const int32_t status = attni_thread_pool_create(&attni_system_allocator, 2, &pool);
    attni_thread_pool_destroy(pool);
    sleep_microseconds(10000);
    threads_at_rest = count_threads();
    for (int32_t i = 0; i < 100; i++) {
        sleep_microseconds(1000);
        const int32_t count = count_threads();
        threads_at_rest = count < threads_at_rest ? count : threads_at_rest;
    }
    return status;
}

static void create_when_the_kth_thread_fails_leaves_nothing(void **state) {
    (void)state;
    enum { NUM_THREADS = 8 };
    const sigset_t mask = set_peculiar_mask();
    for (int32_t k = 0; k < NUM_THREADS - 1; k++) {
        struct ledger ledger = {0};
        const attni_allocator allocator = ledger_allocator(&ledger);
        attni_thread_pool *pool = (attni_thread_pool *)&ledger;
        threads_before_failure = k;
        assert_int_equal(attni_thread_pool_create(&allocator, NUM_THREADS, &pool),
                         ATTN_ERROR_THREAD);
        assert_int_equal(threads_before_failure, -1);
        assert_null(pool);
        assert_all_freed(&ledger);
        assert_mask_is(&mask);
        assert_thread_count_becomes(threads_at_rest);
    }
}

static void create_when_a_lock_fails_leaves_nothing(void **state) {
    (void)state;
    for (int32_t k = 0; k < 3; k++) {
        struct ledger ledger = {0};
        const attni_allocator allocator = ledger_allocator(&ledger);
        attni_thread_pool *pool = (attni_thread_pool *)&ledger;
        locks_before_failure = k;
        assert_int_equal(attni_thread_pool_create(&allocator, 3, &pool), ATTN_ERROR_THREAD);
        assert_int_equal(locks_before_failure, -1);
        assert_null(pool);
        assert_all_freed(&ledger);
        assert_thread_count_becomes(threads_at_rest);
    }
}

static void create_without_memory_is_a_memory_error(void **state) {
    (void)state;
    struct ledger ledger = {.refuses = 1};
    const attni_allocator allocator = ledger_allocator(&ledger);
    attni_thread_pool *pool = (attni_thread_pool *)&ledger;
    assert_int_equal(attni_thread_pool_create(&allocator, 3, &pool), ATTN_ERROR_MEMORY);
    assert_null(pool);
    assert_all_freed(&ledger);
}

static void create_after_a_failure_succeeds(void **state) {
    (void)state;
    attni_thread_pool *pool = NULL;
    threads_before_failure = 1;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, 3, &pool),
                     ATTN_ERROR_THREAD);
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, 3, &pool), ATTN_OK);
    attni_thread_pool_destroy(pool);
}

static void create_restores_the_callers_signal_mask(void **state) {
    (void)state;
    const sigset_t mask = set_peculiar_mask();
    attni_thread_pool *pool = NULL;
    assert_int_equal(attni_thread_pool_create(&attni_system_allocator, 3, &pool), ATTN_OK);
    assert_mask_is(&mask);
    attni_thread_pool_destroy(pool);
    assert_mask_is(&mask);
}

static void create_and_destroy_1000_times_leaves_no_thread(void **state) {
    (void)state;
    struct ledger ledger = {0};
    const attni_allocator allocator = ledger_allocator(&ledger);
    for (int32_t i = 0; i < 1000; i++) {
        attni_thread_pool *pool = NULL;
        assert_int_equal(attni_thread_pool_create(&allocator, 3, &pool), ATTN_OK);
        assert_int_equal(ledger.num_blocks, 1);
        if (i % 100 == 0) {
            assert_thread_count_becomes(threads_at_rest + 2);
            sleep_microseconds(
                1000); /* this time destroy finds them asleep, else spinning or starting */
        }
        attni_thread_pool_destroy(pool);
        assert_all_freed(&ledger);
    }
    assert_thread_count_becomes(threads_at_rest);
}

static void destroy_null_is_allowed(void **state) {
    (void)state;
    attni_thread_pool_destroy(NULL);
    assert_thread_count_becomes(threads_at_rest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_when_the_kth_thread_fails_leaves_nothing),
        cmocka_unit_test(create_when_a_lock_fails_leaves_nothing),
        cmocka_unit_test(create_without_memory_is_a_memory_error),
        cmocka_unit_test(create_after_a_failure_succeeds),
        cmocka_unit_test(create_restores_the_callers_signal_mask),
        cmocka_unit_test(create_and_destroy_1000_times_leaves_no_thread),
        cmocka_unit_test(destroy_null_is_allowed),
    };
    return cmocka_run_group_tests(tests, count_threads_at_rest, NULL);
}
