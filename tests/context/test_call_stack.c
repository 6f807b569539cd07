/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_call_stack.c: calls of every kind on threads whose stacks hold what context.h promises and
 * end in a page without access. Prints how deep the calls went.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "mixed_calls.h"

enum {
    KIB = 1024,
    CALL_BYTES = 64 * KIB,
    SELFTEST_BYTES = 128 * KIB,
    /* The C library's own part of a thread's stack: its description, thread-local data. */
    THREAD_BYTES = 16 * KIB,
    GUARD_BYTES = 64 * KIB, /* one page of any machine */
    UNTOUCHED = 0xa5
};

static mixed_calls calls;
static unsigned char results[MIXED_MOST_BYTES];

/* ---- what is called ---- */

/* A context and what to do with it, on a thread of its own. */
typedef struct stack_task {
    bool (*run)(attn_context *context);
    attn_context *context;
    bool passed;
    const unsigned char *first_frame;
} stack_task;

static bool run_calls(attn_context *context) {
    int mismatches = 0;
    for (int which = 0; which < mixed_calls_count(); ++which) {
        mismatches += mixed_call_run(&calls, context, calls.layer, which, results) != ATTN_OK;
    }
    return mismatches == 0;
}

/* A refused call writes its line of detail; a context describes itself and starts its threads. */
static bool run_others(attn_context *context) {
    const int64_t shape[] = {2, 3};
    attn_tensor view;
    attn_context_info info = {.struct_size = sizeof info};
    attn_context *other = NULL;
    const attn_status refused = attn_sdpa(context, NULL, NULL, NULL, NULL, NULL, NULL, 0);
    const bool passed = refused == ATTN_ERROR_NULL && attn_last_error()[0] != '\0' &&
                        attn_tensor_init(&view, results, ATTN_DTYPE_FLOAT32, 2, shape) == ATTN_OK &&
                        attn_context_describe(context, &info) == ATTN_OK &&
                        attn_context_create(NULL, &other) == ATTN_OK && attn_context_start(other) == ATTN_OK &&
                        attn_mha_init_parameters(context, calls.layer, NULL) == ATTN_OK;
    attn_context_destroy(other);
    return passed;
}

static bool run_selftest(attn_context *context) {
    return attn_selftest(context, NULL) == ATTN_OK;
}

/* ---- threads with little stack ---- */

static void *run_task(void *data) {
    stack_task *task = data;
    task->first_frame = __builtin_frame_address(0);
    task->passed = task->run(task->context);
    return NULL;
}

/* Bytes of stack below the thread's first frame that the task wrote to. */
static size_t depth_of(bool (*run)(attn_context *), attn_context *context, size_t bytes) {
    const size_t whole = GUARD_BYTES + bytes + THREAD_BYTES;
    unsigned char *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    memset(memory, UNTOUCHED, whole);
    assert_int_equal(mprotect(memory, GUARD_BYTES, PROT_NONE), 0);
    unsigned char *stack = memory + GUARD_BYTES;

    pthread_attr_t attributes;
    pthread_t thread;
    stack_task task = {.run = run, .context = context};
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, bytes + THREAD_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run_task, &task), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
    assert_true(task.passed);

    const unsigned char *deepest = stack;
    while (deepest < task.first_frame && *deepest == UNTOUCHED) {
        ++deepest;
    }
    const size_t depth = (size_t)(task.first_frame - deepest);
    assert_int_equal(munmap(memory, whole), 0);
    return depth;
}

static size_t deeper(size_t depth, bool (*run)(attn_context *), attn_context *context, size_t bytes) {
    const size_t other = depth_of(run, context, bytes);
    return depth > other ? depth : other;
}

static attn_context *context_of(const char *kernels, int32_t num_threads, int32_t gemm) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = num_threads, .gemm = gemm, .kernels = kernels};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

/* ---- tests ---- */

static void test_calls_keep_to_their_stack(void **state) {
    (void)state;
    static const int32_t gemms[] = {ATTN_GEMM_AUTO, ATTN_GEMM_BLAS, ATTN_GEMM_NATIVE};
    size_t depth = 0;
    for (int32_t index = 0; attn_kernels_name(index) != NULL; ++index) {
        for (int which = 0; which < 3; ++which) {
            for (int32_t num_threads = 1; num_threads <= 2; ++num_threads) {
                attn_context *context = context_of(attn_kernels_name(index), num_threads, gemms[which]);
                depth = deeper(depth, run_calls, context, CALL_BYTES);
                depth = deeper(depth, run_others, context, CALL_BYTES);
                attn_context_destroy(context);
            }
        }
    }
    printf("stack of calls: %zu bytes of %d\n", depth, CALL_BYTES);
    assert_true(depth > 0);
}

static void test_selftest_keeps_to_its_stack(void **state) {
    (void)state;
    size_t depth = 0;
    for (int32_t num_threads = 1; num_threads <= 2; ++num_threads) {
        attn_context *context = context_of(NULL, num_threads, ATTN_GEMM_AUTO);
        depth = deeper(depth, run_selftest, context, SELFTEST_BYTES);
        attn_context_destroy(context);
    }
    printf("stack of the self-test: %zu bytes of %d\n", depth, SELFTEST_BYTES);
    assert_true(depth > 0);
}

static int create_calls(void **state) {
    (void)state;
    mixed_calls_create(&calls);
    return 0;
}

static int destroy_calls(void **state) {
    (void)state;
    mixed_calls_destroy(&calls);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_keep_to_their_stack),
        cmocka_unit_test(test_selftest_keeps_to_its_stack),
    };
    return cmocka_run_group_tests(tests, create_calls, destroy_calls);
}
