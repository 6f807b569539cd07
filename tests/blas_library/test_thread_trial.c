/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_thread_trial.c: how many threads are tried before a BLAS is loaded, and what is said where
 * one is refused. Linked so that threads and the number of CPUs come from this file.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cpu_count.h"
#include "blas_library/thread_trial.h"

static int32_t cpus;
static int granted;
static int started;

int32_t __wrap_attni_cpu_affinity_count(void);
int32_t __wrap_attni_cpu_affinity_count(void) {
    return cpus;
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    if (started == granted) {
        return EAGAIN;
    }
    ++started;
    return __real_pthread_create(thread, attributes, start, argument);
}

static bool try_with(int32_t num_cpus, int num_granted) {
    cpus = num_cpus;
    granted = num_granted;
    started = 0;
    return attni_can_start_blas_threads();
}

static void forget_environment(void) {
    unsetenv("OPENBLAS_NUM_THREADS");
    unsetenv("GOTO_NUM_THREADS");
    unsetenv("OMP_NUM_THREADS");
}

static void one_thread_less_than_cpus_is_tried(void **state) {
    (void)state;
    forget_environment();
    assert_true(try_with(1, 0));
    assert_int_equal(started, 0);
    assert_true(try_with(5, 100));
    assert_int_equal(started, 4);
    assert_true(try_with(5, 4));
    assert_true(try_with(100000, 300));
    assert_int_equal(started, 255);
}

static void a_refused_thread_is_told(void **state) {
    (void)state;
    forget_environment();
    assert_false(try_with(2, 0));
    assert_false(try_with(5, 3));
    assert_int_equal(started, 3);
}

static void the_environment_of_openblas_counts(void **state) {
    (void)state;
    static const char *const names[] = {"OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS",
                                        "OMP_NUM_THREADS"};
    for (int i = 2; i >= 0; --i) { /* each comes before the last one */
        setenv(names[i], i == 0 ? "1" : i == 1 ? "2" : "3", 1);
        assert_true(try_with(8, i));
        assert_int_equal(started, i);
    }
    setenv(names[0], "100", 1); /* no more than there are CPUs */
    assert_true(try_with(8, 100));
    assert_int_equal(started, 7);
    static const char *const senseless[] = {"", "many", "0", "-3"};
    forget_environment();
    for (size_t i = 0; i < sizeof senseless / sizeof senseless[0]; ++i) {
        setenv(names[0], senseless[i], 1);
        assert_true(try_with(4, 100));
        assert_int_equal(started, 3);
    }
    forget_environment();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_less_than_cpus_is_tried),
        cmocka_unit_test(a_refused_thread_is_told),
        cmocka_unit_test(the_environment_of_openblas_counts),
    };
    return cmocka_run_group_tests_name("thread_trial", tests, NULL, NULL);
}
