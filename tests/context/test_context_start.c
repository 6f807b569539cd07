/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_context_start.c: attn_context_start starts the threads that a context says it has, once, and
 * none where there are none to start.
 */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/end_of_child.h"
#include "support/fork_threads.h"

static int count_threads(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (const struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        count += entry->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* A joined thread is listed for a moment longer, until the kernel has done away with it. */
static void assert_thread_count_becomes(int expected) {
    for (int attempt = 0; count_threads() != expected && attempt < 2000; ++attempt) {
        usleep(1000);
    }
    assert_int_equal(count_threads(), expected);
}

static attn_context *context_of(const attn_context_config *given) {
    attn_context_config config = *given;
    config.struct_size = sizeof config;
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

static void assert_starts(attn_context *context) {
    if (attn_context_start(context) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    assert_string_equal(attn_last_error(), "");
}

/* A call large enough for all threads: every value is 3, and so is every mean of them. */
static int computes(attn_context *context) {
    enum { ROWS = 512, COLS = 32 };
    static float values[ROWS * COLS], results[ROWS * COLS];
    const int64_t shape[] = {ROWS, COLS};
    attn_tensor x, y;
    for (int i = 0; i < ROWS * COLS; ++i) {
        values[i] = 3;
        results[i] = 0;
    }
    if (attn_tensor_init(&x, values, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK ||
        attn_tensor_init(&y, results, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK ||
        attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0) != ATTN_OK) {
        return 0;
    }
    int right = 1;
    for (int i = 0; i < ROWS * COLS; ++i) {
        right = right && results[i] > 2.9999F && results[i] < 3.0001F;
    }
    return right;
}

static void threads_run_from_then_on(void **state) {
    (void)state;
    const int before = count_threads();
    for (int32_t num_threads = 1; num_threads <= 4; ++num_threads) {
        attn_context *context = context_of(&(attn_context_config){.num_threads = num_threads});
        assert_int_equal(count_threads(), before); /* making a context starts none */
        for (int again = 0; again < 2; ++again) {
            assert_starts(context);
            assert_int_equal(count_threads(), before + num_threads - 1);
        }
        assert_true(computes(context));
        assert_int_equal(count_threads(), before + num_threads - 1);
        attn_context_destroy(context);
        assert_thread_count_becomes(before);
    }
}

static void threads_that_a_call_has_started_are_enough(void **state) {
    (void)state;
    const int before = count_threads();
    attn_context *context = context_of(&(attn_context_config){.num_threads = 3});
    assert_true(computes(context));
    assert_int_equal(count_threads(), before + 2);
    assert_starts(context);
    assert_int_equal(count_threads(), before + 2);
    attn_context_destroy(context);
    assert_thread_count_becomes(before);
}

static int32_t run_here(void *state, int64_t count, attn_task_fn task, void *data) {
    ++*(int *)state;
    for (int64_t index = 0; index < count; ++index) {
        task(data, index);
    }
    return 0;
}

static void callers_pool_starts_nothing_and_is_not_called(void **state) {
    (void)state;
    const int before = count_threads();
    int calls = 0;
    attn_context *context = context_of(&(attn_context_config){
        .parallel_for_width = 4, .parallel_for = run_here, .parallel_for_state = &calls});
    assert_starts(context);
    assert_int_equal(count_threads(), before);
    assert_int_equal(calls, 0);
    assert_true(computes(context));
    assert_true(calls > 0);
    assert_int_equal(count_threads(), before);
    attn_context_destroy(context);
}

static void *start(void *context) {
    return (void *)(intptr_t)attn_context_start(context); /* NOLINT: a status, not an address */
}

/* Of many who ask at once, one makes the pool. */
static void threads_are_started_once_by_many_callers(void **state) {
    (void)state;
    enum { CALLERS = 4, ROUNDS = 50 };
    const int before = count_threads();
    for (int round = 0; round < ROUNDS; ++round) {
        attn_context *context = context_of(&(attn_context_config){.num_threads = 2});
        pthread_t callers[CALLERS];
        for (int i = 0; i < CALLERS; ++i) {
            assert_int_equal(pthread_create(&callers[i], NULL, start, context), 0);
        }
        for (int i = 0; i < CALLERS; ++i) {
            void *status;
            assert_int_equal(pthread_join(callers[i], &status), 0);
            assert_int_equal((intptr_t)status, ATTN_OK);
        }
        assert_thread_count_becomes(before + 1);
        attn_context_destroy(context);
        assert_thread_count_becomes(before);
    }
}

/* 0 if all is as it should be, else the number of the first thing that is not. */
static int check_in_child(attn_context *inherited, int32_t num_threads) {
    const int before = count_threads();
    if (attn_context_start(inherited) != ATTN_OK || count_threads() != before) {
        return 1;
    }
    if (!computes(inherited) || count_threads() != before) {
        return 2;
    }
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = num_threads};
    attn_context *own;
    if (attn_context_create(&config, &own) != ATTN_OK || attn_context_start(own) != ATTN_OK ||
        count_threads() != before + num_threads - 1 || !computes(own)) {
        return 3;
    }
    attn_context_destroy(own);
    return 0;
}

static void child_starts_threads_of_its_own_contexts_only(void **state) {
    (void)state;
    for (int started = 0; started < 2; ++started) {
        const int32_t num_threads = threads_beside_fork();
        attn_context *context = context_of(&(attn_context_config){.num_threads = num_threads});
        if (started) {
            assert_starts(context);
        }
        const pid_t child = fork();
        if (child == 0) {
            alarm(60);
            end_of_child(check_in_child(context, num_threads));
        }
        int outcome;
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &outcome, 0), child);
        assert_true(WIFEXITED(outcome));
        assert_int_equal(WEXITSTATUS(outcome), 0);
        attn_context_destroy(context);
    }
}

/* The last of the program's tests, and the only one that has the default context's threads. */
static void null_starts_the_default_contexts(void **state) {
    (void)state;
    const int before = count_threads();
    setenv("ATTN_NUM_THREADS", "three", 1);
    assert_int_equal(attn_context_start(NULL), ATTN_ERROR_VALUE);
    assert_string_equal(attn_last_error(), "ATTN_NUM_THREADS: expected 1 to 1024, got \"three\"");
    assert_int_equal(count_threads(), before);
    setenv("ATTN_NUM_THREADS", "3", 1);
    assert_starts(NULL);
    assert_int_equal(count_threads(), before + 2);
    assert_starts(NULL);
    assert_true(computes(NULL));
    assert_int_equal(count_threads(), before + 2);
}

/* Some tools start a thread of their own with the program's first; it must not be counted as a
 * context's. */
static int start_a_first_thread(void **state) {
    (void)state;
    attn_context *context = context_of(&(attn_context_config){.num_threads = 2});
    const attn_status status = attn_context_start(context);
    attn_context_destroy(context);
    usleep(100000);
    return status;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_run_from_then_on),
        cmocka_unit_test(threads_that_a_call_has_started_are_enough),
        cmocka_unit_test(callers_pool_starts_nothing_and_is_not_called),
        cmocka_unit_test(threads_are_started_once_by_many_callers),
        cmocka_unit_test(child_starts_threads_of_its_own_contexts_only),
        cmocka_unit_test(null_starts_the_default_contexts),
    };
    return cmocka_run_group_tests_name("context_start", tests, start_a_first_thread, NULL);
}
