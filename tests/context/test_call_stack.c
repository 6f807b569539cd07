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
#include <unistd.h>

#include <cmocka.h>

#include "mixed_calls.h"

enum { KIB = 1024, MOST_BYTES = 1024 * KIB, UNTOUCHED = 0xa5 };

/* Of calls of float32 with the default engine, whatever of the library's own they reach, and of all
 * others. A kernel that is not optimized keeps each of its vectors in memory, which is no promise of
 * the library's. */
#ifdef __OPTIMIZE__
enum { FLOAT32_BYTES = 32 * KIB, CALL_BYTES = 128 * KIB };
#else
enum { FLOAT32_BYTES = 128 * KIB, CALL_BYTES = 256 * KIB };
#endif

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
    int failures = 0;
    for (int which = 0; which < mixed_calls_count(); ++which) {
        failures += mixed_call_run(&calls, context, calls.layer, which, results) != ATTN_OK;
    }
    return failures == 0;
}

static bool run_float32_calls(attn_context *context) {
    int failures = 0;
    for (int which = 0; which < mixed_calls_count(); ++which) {
        failures += mixed_call_is_float32(which) &&
                    mixed_call_run(&calls, context, calls.layer, which, results) != ATTN_OK;
    }
    return failures == 0;
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
                        attn_context_create(NULL, &other) == ATTN_OK &&
                        attn_context_start(other) == ATTN_OK &&
                        attn_mha_init_parameters(context, calls.layer, NULL) == ATTN_OK;
    attn_context_destroy(other);
    return passed;
}

static bool run_nothing(attn_context *context) {
    return context == NULL;
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

/* Runs a task on a thread whose stack is [stack, stack + bytes). */
static void run_on_stack(stack_task *task, unsigned char *stack, size_t bytes) {
    pthread_attr_t attributes;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, bytes), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run_task, task), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
    assert_true(task->passed);
}

/* What the C library takes of a thread's stack before its first frame: thread-local data, which is 60
 * KiB in an OpenBLAS. */
static size_t thread_bytes(unsigned char *memory) {
    stack_task task = {.run = run_nothing};
    run_on_stack(&task, memory, MOST_BYTES);
    return (size_t)(memory + MOST_BYTES - task.first_frame);
}

/* Bytes of stack below the thread's first frame that the task wrote to, of `bytes` that it has before
 * a page without access. */
static size_t depth_of(bool (*run)(attn_context *), attn_context *context, size_t bytes) {
    unsigned char *memory =
        mmap(NULL, MOST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    const size_t needed = bytes + thread_bytes(memory);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t guarded = (MOST_BYTES - needed) / page * page;
    unsigned char *stack = memory + guarded;
    memset(memory, UNTOUCHED, MOST_BYTES);
    assert_int_equal(mprotect(memory, guarded, PROT_NONE), 0);
    stack_task task = {.run = run, .context = context};
    run_on_stack(&task, stack, MOST_BYTES - guarded);
    const unsigned char *deepest = stack;
    while (deepest < task.first_frame && *deepest == UNTOUCHED) {
        ++deepest;
    }
    const size_t depth = (size_t)(task.first_frame - deepest);
    assert_int_equal(munmap(memory, MOST_BYTES), 0);
    return depth;
}

static attn_context *context_of(const char *kernels, int32_t num_threads, int32_t gemm) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = num_threads, .gemm = gemm, .kernels = kernels};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

/* The deepest that `run` goes with any kernels, on one thread and on two, with `gemm`. */
static size_t depth_with_any_kernels(bool (*run)(attn_context *), int32_t gemm, size_t bytes) {
    size_t depth = 0;
    for (int32_t index = 0; attn_kernels_name(index) != NULL; ++index) {
        for (int32_t num_threads = 1; num_threads <= 2; ++num_threads) {
            attn_context *context = context_of(attn_kernels_name(index), num_threads, gemm);
            const size_t other = depth_of(run, context, bytes);
            depth = depth > other ? depth : other;
            attn_context_destroy(context);
        }
    }
    return depth;
}

static void expect_depth(const char *what, bool (*run)(attn_context *), int32_t gemm,
                         size_t bytes) {
    const size_t depth = depth_with_any_kernels(run, gemm, bytes);
    printf("stack of %s: %zu bytes of %zu\n", what, depth, bytes);
    assert_in_range(depth, 1, bytes);
}

/* ---- tests ---- */

static void test_calls_of_float32_keep_to_their_stack(void **state) {
    (void)state;
    expect_depth("float32", run_float32_calls, ATTN_GEMM_AUTO, FLOAT32_BYTES);
    expect_depth("float32, ATTN_GEMM_NATIVE", run_float32_calls, ATTN_GEMM_NATIVE, FLOAT32_BYTES);
    expect_depth("refusals, contexts, parameters", run_others, ATTN_GEMM_AUTO, FLOAT32_BYTES);
}

static void test_calls_of_both_types_keep_to_their_stack(void **state) {
    (void)state;
    expect_depth("both types", run_calls, ATTN_GEMM_AUTO, CALL_BYTES);
    expect_depth("both types, ATTN_GEMM_BLAS", run_calls, ATTN_GEMM_BLAS, CALL_BYTES);
    expect_depth("both types, ATTN_GEMM_NATIVE", run_calls, ATTN_GEMM_NATIVE, CALL_BYTES);
}

static void test_selftest_keeps_to_its_stack(void **state) {
    (void)state;
    expect_depth("the self-test", run_selftest, ATTN_GEMM_AUTO, CALL_BYTES);
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
        cmocka_unit_test(test_calls_of_float32_keep_to_their_stack),
        cmocka_unit_test(test_calls_of_both_types_keep_to_their_stack),
        cmocka_unit_test(test_selftest_keeps_to_its_stack),
    };
    return cmocka_run_group_tests(tests, create_calls, destroy_calls);
}
