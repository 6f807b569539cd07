/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_failing_threads.c: calls whose context cannot start its threads. They must write nothing,
 * and succeed once threads are to be had. Linked so that pthread_create comes from this file.
 */
#include <errno.h>
#include <pthread.h>

#include "counting_allocator.h"
#include "large_calls.h"

enum { NUM_THREADS = 3 };

static int threads_left; /* to be started; negative: no limit */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    if (threads_left == 0) {
        return EAGAIN;
    }
    threads_left -= threads_left > 0;
    return __real_pthread_create(thread, attributes, start, argument);
}

static bool no_mutex_is_left;

int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
    return no_mutex_is_left ? ENOMEM : __real_pthread_mutex_init(mutex, attributes);
}

static void call_without_threads_writes_nothing(void **state) {
    const large_call *call = *state;
    static float expected[LARGE_ROWS * LARGE_COLS];
    static float output[LARGE_ROWS * LARGE_COLS];
    threads_left = -1;
    large_call_expect(call, expected);
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = NUM_THREADS,
                                        .engine = call->engine,
                                        .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    refusal_fill(output, sizeof output);
    for (int started = 0; started < NUM_THREADS - 1; ++started) {
        threads_left = started;
        refusal_assert(call->name, call->run(context, output), ATTN_ERROR_THREAD,
                       "num_threads: 3 threads could not be started: ...");
        refusal_assert_untouched("output", output, sizeof output);
    }
    threads_left = NUM_THREADS - 1;
    large_call_assert(call, context, expected);
    assert_int_equal(threads_left, 0);
    attn_context_destroy(context);
}

static void start_without_threads_fails_until_they_are_to_be_had(void **state) {
    (void)state;
    static float expected[LARGE_ROWS * LARGE_COLS];
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = NUM_THREADS, .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    threads_left = -1;
    large_call_expect(&large_calls[0], expected);
    refusal_assert_ok("attn_context_create", attn_context_create(&config, &context));
    for (int started = 0; started < NUM_THREADS - 1; ++started) {
        threads_left = started;
        refusal_assert("attn_context_start", attn_context_start(context), ATTN_ERROR_THREAD,
                       "num_threads: 3 threads could not be started: threads not available");
    }
    threads_left = NUM_THREADS - 1;
    refusal_assert_ok("attn_context_start", attn_context_start(context));
    assert_int_equal(threads_left, 0);
    /* From here on nothing fails for want of a thread. */
    refusal_assert_ok("attn_context_start", attn_context_start(context));
    large_call_assert(&large_calls[0], context, expected);
    attn_context_destroy(context);
    threads_left = -1;
}

/* The self-test starts threads of its own. */
static void selftest_without_threads_says_so_and_passes_later(void **state) {
    (void)state;
    enum { CALLERS = 4 };
    const attn_context_config params = {
        .struct_size = sizeof params, .num_threads = 1, .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    for (int started = 0; started < CALLERS - 1; ++started) {
        threads_left = started;
        refusal_assert("attn_selftest", attn_selftest(context, NULL), ATTN_ERROR_THREAD,
                       "selftest: 4 concurrent callers: threads not available");
    }
    threads_left = CALLERS - 1;
    refusal_assert_ok("attn_selftest", attn_selftest(context, NULL));
    assert_int_equal(threads_left, 0);
    attn_context_destroy(context);
}

static void context_without_a_mutex_is_refused_and_leaves_nothing(void **state) {
    (void)state;
    counting_allocator allocator;
    attn_context_config params = {.struct_size = sizeof params};
    attn_context *context = (attn_context *)&params;
    counting_allocator_init(&allocator);
    counting_allocator_use(&allocator, &params);
    no_mutex_is_left = true;
    refusal_assert("attn_context_create", attn_context_create(&params, &context), ATTN_ERROR_THREAD,
                   "context: the system has no mutex for it");
    no_mutex_is_left = false;
    assert_null(context);
    assert_int_equal(allocator.requests, 1);
    assert_int_equal(allocator.live_blocks, 0);
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    attn_context_destroy(context);
    assert_int_equal(allocator.live_blocks, 0);
    assert_int_equal(allocator.mistakes, 0);
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < num_large_calls; ++i) {
        refusal_suite_add(&suite, large_calls[i].name, call_without_threads_writes_nothing,
                          &large_calls[i]);
    }
    refusal_suite_add(&suite, "attn_context_start",
                      start_without_threads_fails_until_they_are_to_be_had, NULL);
    refusal_suite_add(&suite, "attn_selftest", selftest_without_threads_says_so_and_passes_later,
                      NULL);
    refusal_suite_add(&suite, "attn_context_create",
                      context_without_a_mutex_is_refused_and_leaves_nothing, NULL);
    return refusal_suite_run(&suite, "threads that cannot be started");
}
