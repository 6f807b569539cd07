/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_fork_beside_blas.c: a process whose threads are inside BLAS forks; parent and children go on,
 * and get what a lone caller got before. scripts/blas-matrix runs it with every BLAS. What the
 * sanitizers' allocators hold, and are not made to hold while somebody forks, is kept out of the
 * way: callers bring their workspace.
 */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/end_of_child.h"

/* Long enough for OpenBLAS to use its threads. */
enum { HEADS = 2, LENGTH = 300, HEAD_DIM = 64, VALUES = HEADS * LENGTH * HEAD_DIM };
enum { CALLERS = 2, CHILDREN = 20, SECONDS_TO_LIVE = 100 };

static double input[VALUES];
static double expected[VALUES];
static attn_context *context;
static size_t workspace_bytes;
static atomic_int num_inside; /* callers that have begun */
static atomic_int num_wrong;
static atomic_bool is_over;

typedef struct caller {
    double output[VALUES];
    void *workspace;
} caller;

static caller callers[CALLERS + 1];

static attn_status attend(caller *with) {
    static const int64_t shape[] = {HEADS, LENGTH, HEAD_DIM};
    attn_tensor x;
    attn_tensor y;
    attn_status status = attn_tensor_init(&x, input, ATTN_DTYPE_FLOAT64, 3, shape);
    status = status != ATTN_OK ? status
                               : attn_tensor_init(&y, with->output, ATTN_DTYPE_FLOAT64, 3, shape);
    return status != ATTN_OK
               ? status
               : attn_sdpa(context, &x, &x, &x, NULL, &y, with->workspace, workspace_bytes);
}

/* Each of two results, whoever computes the products, is within the bound of sdpa.h: |x| <= 1/2, so
 * |scale| sum |q k| <= 2, two scores differ by 4 at most, and sum w |v| <= 1/2. */
static int is_wrong(caller *with) {
    const double bound = DBL_EPSILON / 2 * (2 * (HEAD_DIM + 8) * 2 + LENGTH + 16 + 4) / 2;
    memset(with->output, 0xFF, sizeof with->output);
    if (attend(with) != ATTN_OK) {
        return 1;
    }
    for (int i = 0; i < VALUES; ++i) {
        if (!(fabs(with->output[i] - expected[i]) <= 2 * bound)) {
            return 1;
        }
    }
    return 0;
}

static void *attend_until_over(void *data) {
    atomic_fetch_add(&num_inside, 1);
    while (!atomic_load(&is_over)) {
        atomic_fetch_add(&num_wrong, is_wrong(data));
    }
    return NULL;
}

static bool has_succeeded(pid_t child) {
    int outcome = -1;
    return child > 0 && waitpid(child, &outcome, 0) == child && outcome == 0;
}

/* A child that computes, and then its own child. */
static void assert_children_succeed(void) {
    caller *with = &callers[CALLERS];
    const pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS_TO_LIVE);
        const int wrong = is_wrong(with);
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            alarm(SECONDS_TO_LIVE);
            end_of_child(is_wrong(with));
        }
        end_of_child(wrong != 0 || !has_succeeded(grandchild));
    }
    assert_true(has_succeeded(child));
}

static void child_of_a_process_that_has_used_blas_computes(void **state) {
    (void)state;
    assert_children_succeed();
    assert_false(is_wrong(&callers[CALLERS]));
}

static void process_may_fork_while_its_threads_are_inside_blas(void **state) {
    (void)state;
    if (getenv("ATTENTION_TEST_EMULATED") != NULL) {
        print_message("skipped: the emulator cannot fork a process whose threads are running\n");
        skip();
    }
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; ++i) {
        assert_int_equal(pthread_create(&threads[i], NULL, attend_until_over, &callers[i]), 0);
    }
    while (atomic_load(&num_inside) < CALLERS) {
        usleep(100);
    }
    for (int i = 0; i < CHILDREN; ++i) {
        alarm(SECONDS_TO_LIVE);
        usleep((useconds_t)(i % 5 * 700));
        assert_children_succeed();
    }
    alarm(0);
    atomic_store(&is_over, true);
    for (int i = 0; i < CALLERS; ++i) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(atomic_load(&num_wrong), 0);
    assert_false(is_wrong(&callers[CALLERS]));
}

static int prepare(void **state) {
    (void)state;
    static const int64_t shape[] = {HEADS, LENGTH, HEAD_DIM};
    const attn_context_config settings = {.struct_size = sizeof settings, .num_threads = 1};
    attn_context_info info = {.struct_size = sizeof info};
    attn_tensor x;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    assert_int_equal(attn_context_describe(context, &info), ATTN_OK);
    print_message("BLAS: %s\n", info.blas);
    for (int i = 0; i < VALUES; ++i) {
        input[i] = i * 37 % 101 / 101.0 - 0.5;
    }
    assert_int_equal(attn_tensor_init(&x, input, ATTN_DTYPE_FLOAT64, 3, shape), ATTN_OK);
    assert_int_equal(attn_sdpa_workspace_bytes(context, &x, &x, &x, NULL, &x, &workspace_bytes),
                     ATTN_OK);
    for (int i = 0; i <= CALLERS; ++i) {
        callers[i].workspace = aligned_alloc(64, (workspace_bytes + 63) / 64 * 64);
        assert_non_null(callers[i].workspace);
    }
    assert_int_equal(attend(&callers[0]), ATTN_OK);
    memcpy(expected, callers[0].output, sizeof expected);
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    for (int i = 0; i <= CALLERS; ++i) {
        free(callers[i].workspace);
    }
    attn_context_destroy(context);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_of_a_process_that_has_used_blas_computes),
        cmocka_unit_test(process_may_fork_while_its_threads_are_inside_blas),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
