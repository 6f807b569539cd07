/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_same_process_number.c: a child whose process number is its parent's, as in a process namespace
 * of its own, or once numbers have come round, computes with contexts of its parent and destroys
 * them, starts threads of its own, and leaves the CPUs of all its threads alone. Linked so that getpid
 * and pthread_atfork come from this file.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/end_of_child.h"
#include "support/fork_threads.h"

enum { HEADS = 8, ROWS = 160, COLS = 32, VALUES = HEADS * ROWS * COLS, PATIENCE_SECONDS = 60 };

static bool has_one_number; /* for every process */

pid_t __real_getpid(void);
pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void) {
    return has_one_number ? 4711 : __real_getpid();
}

static bool has_no_memory_for_handlers;

int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    return has_no_memory_for_handlers ? ENOMEM : __real_pthread_atfork(prepare, parent, child);
}

static double doubles[VALUES];
static float floats[VALUES];

/* Every value is 3, and so is every mean of them. Float64 is BLAS's. */
static bool computes(attn_context *context, int32_t dtype) {
    static double results[VALUES];
    const bool is_double = dtype == ATTN_DTYPE_FLOAT64;
    const int64_t shape[] = {HEADS, ROWS, COLS};
    attn_tensor x;
    attn_tensor y;
    memset(results, 0, sizeof results);
    if (attn_tensor_init(&x, is_double ? (void *)doubles : (void *)floats, dtype, 3, shape) !=
            ATTN_OK ||
        attn_tensor_init(&y, results, dtype, 3, shape) != ATTN_OK ||
        attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0) != ATTN_OK) {
        return false;
    }
    bool is_right = true;
    for (int i = 0; i < VALUES; ++i) {
        float value;
        memcpy(&value, (char *)results + (size_t)i * sizeof value, sizeof value);
        const double result = is_double ? results[i] : (double)value;
        is_right = is_right && result > 2.9999 && result < 3.0001;
    }
    return is_right;
}

static bool computes_both(attn_context *context) {
    return computes(context, ATTN_DTYPE_FLOAT32) && computes(context, ATTN_DTYPE_FLOAT64);
}

static attn_context *make(int32_t num_threads) {
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = num_threads};
    attn_context *context = NULL;
    return attn_context_create(&config, &context) == ATTN_OK ? context : NULL;
}

static int32_t threads_of(attn_context *context) {
    attn_context_info info = {.struct_size = sizeof info};
    return attn_context_describe(context, &info) == ATTN_OK ? info.num_threads : -1;
}

/* What a child finds amiss, as a number; 0: nothing. A child that waits for threads it has not is
 * ended by the alarm. */
static int use_in_child(attn_context *inherited) {
    cpu_set_t before;
    cpu_set_t after;
    alarm(PATIENCE_SECONDS);
    if (sched_getaffinity(0, sizeof before, &before) != 0) {
        return 1;
    }
    if (!computes_both(inherited) || threads_of(inherited) != 1) {
        return 2;
    }
    if (!computes_both(NULL)) {
        return 3;
    }
    attn_context *own = make(threads_beside_fork());
    if (own == NULL || !computes_both(own) || threads_of(own) != threads_beside_fork()) {
        return 4;
    }
    attn_context_destroy(own);
    attn_context_destroy(inherited);
    if (sched_getaffinity(0, sizeof after, &after) != 0 || !CPU_EQUAL(&before, &after)) {
        return 5;
    }
    return 0;
}

/* Ends a process with the number of a grandchild's or its own finding. */
static int end_of(pid_t child) {
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return 100;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + (status & 0x7f);
}

static int fork_and_use(attn_context *context) {
    const pid_t child = fork();
    if (child == 0) {
        end_of_child(use_in_child(context));
    }
    return end_of(child);
}

/* Forks that nobody counts: children are told by their numbers, which are their own here. What the
 * gate before BLAS registers is no part of this, so it is not entered yet. */
static void where_no_handler_can_be_registered_numbers_have_to_do(void **state) {
    (void)state;
    has_no_memory_for_handlers = true;
    attn_context *context = make(3);
    assert_non_null(context);
    assert_true(computes(context, ATTN_DTYPE_FLOAT32));
    assert_int_equal(fork_and_use(context), 0);
    has_no_memory_for_handlers = false;
    assert_true(computes(context, ATTN_DTYPE_FLOAT32));
    assert_int_equal(threads_of(context), 3);
    assert_int_equal(fork_and_use(context), 0);
    attn_context_destroy(context);
}

static void a_child_of_the_same_number_computes(void **state) {
    (void)state;
    has_one_number = true;
    for (int round = 0; round < 20; ++round) {
        attn_context *context = make(3);
        assert_non_null(context);
        assert_true(computes_both(context));
        assert_int_equal(fork_and_use(context), 0);
        assert_true(computes_both(context));
        attn_context_destroy(context);
    }
    has_one_number = false;
}

static void a_grandchild_of_the_same_number_computes(void **state) {
    (void)state;
    has_one_number = true;
    attn_context *context = make(threads_beside_fork());
    assert_non_null(context);
    assert_true(computes_both(context));
    const pid_t child = fork();
    if (child == 0) {
        attn_context *own = make(threads_beside_fork());
        int found = own != NULL && computes_both(own) ? 0 : 6;
        found = found != 0 ? found : fork_and_use(own);
        found = found != 0 ? found : fork_and_use(context);
        end_of_child(found);
    }
    assert_int_equal(end_of(child), 0);
    attn_context_destroy(context);
    has_one_number = false;
}

/* The first of a process namespace has number 1; its child in another one has it too. */
static int be_first_of_a_namespace(void) {
    attn_context *context = make(threads_beside_fork());
    if (__real_getpid() != 1 || context == NULL || !computes_both(context)) {
        return 7;
    }
    if (unshare(CLONE_NEWPID) != 0) {
        return 8;
    }
    const pid_t child = fork();
    if (child == 0) {
        end_of_child(__real_getpid() != 1 ? 9 : use_in_child(context));
    }
    return end_of(child);
}

static void the_first_of_a_namespace_computes(void **state) {
    (void)state;
    const pid_t outer = fork();
    if (outer == 0) {
        if (unshare(CLONE_NEWPID) != 0) {
            end_of_child(99);
        }
        const pid_t first = fork();
        if (first == 0) {
            end_of_child(be_first_of_a_namespace());
        }
        end_of_child(end_of(first));
    }
    const int found = end_of(outer);
    if (found == 99) {
        print_message("the system lets this process make no process namespace\n");
        skip();
    }
    assert_int_equal(found, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_no_handler_can_be_registered_numbers_have_to_do),
        cmocka_unit_test(the_first_of_a_namespace_computes),
        cmocka_unit_test(a_child_of_the_same_number_computes),
        cmocka_unit_test(a_grandchild_of_the_same_number_computes),
    };
    for (int i = 0; i < VALUES; ++i) {
        doubles[i] = 3;
        floats[i] = 3;
    }
    /* Of the default context, which children make. */
    if (setenv("ATTN_NUM_THREADS", threads_beside_fork() == 1 ? "1" : "2", 1) != 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
