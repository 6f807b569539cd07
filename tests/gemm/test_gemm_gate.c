/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_gate.c: how many callers are inside BLAS at once. The BLAS is this test's own: it
 * counts.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "gemm/gemm.h"
#include "support/end_of_child.h"

enum { NUM_THREADS = 100, NUM_CALLS = 20, MOST_CALLERS = 64 };

/* ---- the BLAS ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static atomic_int parallel; /* what the library says of itself */
static int callers;
static int most_callers;
static int num_calls;
static int awaited;       /* the first callers stay inside until that many have come */
static bool are_released; /* they have, or it took too long */
static int forks_inside;  /* the next caller forks while it is inside */
static pid_t child_of_call;

char *fake_openblas_get_config(void);
int fake_openblas_get_parallel(void);
void fake_cblas_sgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                      float alpha, const float *a, int lda, const float *b, int ldb, float beta,
                      float *c, int ldc);
void fake_cblas_dgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                      double alpha, const double *a, int lda, const double *b, int ldb, double beta,
                      double *c, int ldc);

char *fake_openblas_get_config(void) {
    static char config[] = "OpenBLAS 0.0.0";
    return config;
}

int fake_openblas_get_parallel(void) {
    return parallel;
}

static void pause_for(long milliseconds) {
    const struct timespec duration = {0, milliseconds * 1000000};
    nanosleep(&duration, NULL);
}

/* The last one awaited stays long enough for one more to come in, if nothing holds it back. */
static void wait_for_others(void) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 10;
    if (callers == awaited) {
        pthread_mutex_unlock(&mutex);
        pause_for(50);
        pthread_mutex_lock(&mutex);
        are_released = true;
        pthread_cond_broadcast(&released);
    }
    int waited = 0;
    while (!are_released && waited == 0) {
        waited = pthread_cond_timedwait(&released, &mutex, &deadline);
    }
    are_released = true;
}

static void fork_inside(void) {
    forks_inside = 0;
    child_of_call = fork();
    if (child_of_call == 0) {
        alarm(60);
        end_of_child(0);
    }
}

static void be_inside(void) {
    if (forks_inside != 0) {
        fork_inside();
    }
    pthread_mutex_lock(&mutex);
    ++num_calls;
    ++callers;
    most_callers = callers > most_callers ? callers : most_callers;
    if (!are_released) {
        wait_for_others();
    }
    pthread_mutex_unlock(&mutex);
    sched_yield();
    pthread_mutex_lock(&mutex);
    --callers;
    pthread_mutex_unlock(&mutex);
}

void fake_cblas_sgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                      float alpha, const float *a, int lda, const float *b, int ldb, float beta,
                      float *c, int ldc) {
    be_inside();
    c[0] = layout == 101 && transpose_a == 111 && transpose_b == 112 && m == 2 && n == 3 &&
                   k == 4 && lda == 4 && ldb == 5 && ldc == 6 && beta == 0.0f
               ? alpha * a[0] * b[0]
               : -1;
}

void fake_cblas_dgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                      double alpha, const double *a, int lda, const double *b, int ldb, double beta,
                      double *c, int ldc) {
    be_inside();
    c[0] = layout == 101 && transpose_a == 112 && transpose_b == 111 && m == 2 && n == 3 &&
                   k == 4 && lda == 7 && ldb == 8 && ldc == 9 && beta == 1.0
               ? alpha * a[0] * b[0]
               : -1;
}

/* ---- its callers ---- */

/* (2 x 4) (4 x 3), B by columns; the result is 30 if every argument has arrived. */
static float multiply_single(void) {
    float a = 2;
    float b = 5;
    float c = 0;
    const attni_gemm_call call = {.dtype = ATTN_DTYPE_FLOAT32,
                                  .rows = 2,
                                  .cols = 3,
                                  .inner = 4,
                                  .alpha = 3,
                                  .beta = 0,
                                  .a = {(char *)&a, 0, 4, 1},
                                  .b = {(char *)&b, 0, 1, 5},
                                  .c = {(char *)&c, 0, 6, 1}};
    attni_gemm_blas(&call);
    return c;
}

/* The same, A by columns. */
static double multiply_double(void) {
    double a = 2;
    double b = 5;
    double c = 0;
    const attni_gemm_call call = {.dtype = ATTN_DTYPE_FLOAT64,
                                  .rows = 2,
                                  .cols = 3,
                                  .inner = 4,
                                  .alpha = 3,
                                  .beta = 1,
                                  .a = {(char *)&a, 0, 1, 7},
                                  .b = {(char *)&b, 0, 8, 1},
                                  .c = {(char *)&c, 0, 9, 1}};
    attni_gemm_blas(&call);
    return c;
}

static void *call_both(void *data) {
    int *num_wrong = data;
    for (int i = 0; i < NUM_CALLS; ++i) {
        *num_wrong += multiply_single() != 30;
        *num_wrong += multiply_double() != 30;
    }
    return NULL;
}

/* All threads at once, into a library that says `answer` of itself; returns the largest number of
 * callers inside. The first `expected` of them stay until all have come, so both too few and too
 * many would show. */
static int run_threads(int answer, int expected) {
    pthread_t threads[NUM_THREADS];
    int num_wrong[NUM_THREADS] = {0};
    parallel = answer;
    awaited = expected;
    are_released = false;
    callers = 0;
    most_callers = 0;
    num_calls = 0;
    for (int i = 0; i < NUM_THREADS; ++i) {
        assert_int_equal(pthread_create(&threads[i], NULL, call_both, &num_wrong[i]), 0);
    }
    for (int i = 0; i < NUM_THREADS; ++i) {
        pthread_join(threads[i], NULL);
        assert_int_equal(num_wrong[i], 0);
    }
    assert_int_equal(num_calls, 2 * NUM_CALLS * NUM_THREADS);
    assert_int_equal(callers, 0);
    return most_callers;
}

static void gate_lets_one_caller_into_a_serial_library(void **state) {
    (void)state;
    assert_int_equal(run_threads(0, 1), 1);
}

static void gate_lets_64_callers_into_a_parallel_library(void **state) {
    (void)state;
    assert_int_equal(run_threads(1, MOST_CALLERS), MOST_CALLERS);
    assert_int_equal(run_threads(2, MOST_CALLERS), MOST_CALLERS);
}

/* The library is asked at every call; a new answer counts from then on. */
static void gate_follows_the_librarys_answer(void **state) {
    (void)state;
    assert_int_equal(run_threads(2, MOST_CALLERS), MOST_CALLERS);
    assert_int_equal(run_threads(0, 1), 1);
}

/* ---- fork ---- */

static void *call_once(void *data) {
    int *num_wrong = data;
    *num_wrong += multiply_single() != 30;
    return NULL;
}

/* Lets one caller in and waits until it is inside, where it stays. Returns with the mutex held, so
 * that a child finds it in a known state. */
static void lock_one_inside(pthread_t *thread, int *num_wrong) {
    parallel = 0;
    awaited = 2;
    are_released = false;
    callers = 0;
    assert_int_equal(pthread_create(thread, NULL, call_once, num_wrong), 0);
    pthread_mutex_lock(&mutex);
    while (callers == 0) {
        pthread_mutex_unlock(&mutex);
        pause_for(1);
        pthread_mutex_lock(&mutex);
    }
}

static void release_all(void) {
    are_released = true;
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&mutex);
}

static void assert_child_succeeds(pid_t child) {
    int outcome = -1;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFEXITED(outcome));
    assert_int_equal(WEXITSTATUS(outcome), 0);
}

/* Of a fork without handlers, as by a system call. The caller inside is no thread of the child,
 * which therefore must not wait for it. */
static void gate_of_a_forked_child_is_its_own(void **state) {
    (void)state;
    pthread_t thread;
    int num_wrong = 0;
    lock_one_inside(&thread, &num_wrong);
    const pid_t child = _Fork();
    if (child == 0) {
        are_released = true;
        pthread_mutex_unlock(&mutex);
        alarm(60);
        end_of_child(multiply_single() == 30 && multiply_double() == 30 ? 0 : 1);
    }
    release_all();
    pthread_join(thread, NULL);
    assert_child_succeeds(child);
    assert_int_equal(num_wrong, 0);
    assert_int_equal(run_threads(0, 1), 1);
}

static atomic_bool is_over;

static void *call_until_over(void *data) {
    while (!atomic_load(&is_over)) {
        call_once(data);
    }
    return NULL;
}

/* A library's locks and threads are then as it left them, not as a thread was about to. */
static void fork_waits_until_nobody_is_inside(void **state) {
    (void)state;
    enum { BUSY = 4, FORKS = 30 };
    pthread_t threads[BUSY];
    int num_wrong[BUSY] = {0};
    are_released = true;
    callers = 0;
    atomic_store(&is_over, false);
    for (int i = 0; i < BUSY; ++i) {
        assert_int_equal(pthread_create(&threads[i], NULL, call_until_over, &num_wrong[i]), 0);
    }
    for (int i = 0; i < FORKS; ++i) {
        parallel = i % 3;
        pause_for(i % 4);
        const pid_t child = fork();
        if (child == 0) {
            alarm(60);
            end_of_child(callers == 0 && multiply_double() == 30 ? 0 : 1);
        }
        assert_child_succeeds(child);
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < BUSY; ++i) {
        pthread_join(threads[i], NULL);
        assert_int_equal(num_wrong[i], 0);
    }
    assert_int_equal(callers, 0);
    assert_int_equal(run_threads(0, 1), 1);
}

/* A signal handler's fork, say: it cannot wait for the call that it has interrupted. */
static void fork_from_within_a_call_does_not_wait_for_it(void **state) {
    (void)state;
    are_released = true;
    alarm(60);
    forks_inside = 1;
    assert_int_equal(multiply_single(), 30);
    alarm(0);
    assert_child_succeeds(child_of_call);
    assert_int_equal(run_threads(0, 1), 1);
}

/* Those of GNU's OpenMP are gone, and waited for. */
static void child_calls_only_a_library_that_does_not_miss_its_threads(void **state) {
    (void)state;
    static const bool is_usable[] = {true, true, false};
    are_released = true;
    assert_int_equal(multiply_single(), 30);
    for (parallel = 0; parallel < 3; ++parallel) {
        assert_true(attni_gemm_blas_is_usable());
        const pid_t child = fork();
        if (child == 0) {
            end_of_child(attni_gemm_blas_is_usable() == is_usable[parallel] ? 0 : 1);
        }
        assert_child_succeeds(child);
    }
}

/* The child's threads meet a gate that its parent has used, which is none of theirs: before the
 * first of them, and after. */
static void gate_holds_for_the_threads_of_a_forked_child(void **state) {
    (void)state;
    assert_int_equal(run_threads(0, 1), 1);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        const int first = run_threads(0, 1);
        end_of_child(first == 1 && run_threads(0, 1) == 1 ? 0 : 1);
    }
    assert_child_succeeds(child);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_lets_one_caller_into_a_serial_library),
        cmocka_unit_test(gate_lets_64_callers_into_a_parallel_library),
        cmocka_unit_test(gate_follows_the_librarys_answer),
        cmocka_unit_test(gate_of_a_forked_child_is_its_own),
        cmocka_unit_test(fork_waits_until_nobody_is_inside),
        cmocka_unit_test(fork_from_within_a_call_does_not_wait_for_it),
        cmocka_unit_test(child_calls_only_a_library_that_does_not_miss_its_threads),
        cmocka_unit_test(gate_holds_for_the_threads_of_a_forked_child),
    };
    return cmocka_run_group_tests_name("gemm_gate", tests, NULL, NULL);
}
