/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_first_use.c: two callers that are both the first to need what a context makes only once.
 * Linked so that a call that takes a lock comes through this file, which lets another caller in
 * just before.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "context/context.h"

enum { NUM_ITEMS = 16 };

/* Comes in before the next lock of this thread is taken, once. */
static _Thread_local void (*other_caller)(void);

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
    void (*const other)(void) = other_caller;
    other_caller = NULL;
    if (other != NULL) {
        other();
    }
    return __real_pthread_mutex_lock(mutex);
}

/* ---- the default context ---- */

static attn_context *others_default;

static void use_default(void) {
    assert_int_equal(attni_context_resolve(NULL, &others_default), ATTN_OK);
    setenv("ATTN_NUM_THREADS", "3", 1); /* would be seen if the context were made again */
}

static int32_t default_threads(void) {
    attn_context_info info = {.struct_size = sizeof info};
    assert_int_equal(attn_context_describe(NULL, &info), ATTN_OK);
    return info.num_threads;
}

static void default_context_is_made_by_one_of_two_first_callers(void **state) {
    (void)state;
    setenv("ATTN_NUM_THREADS", "2", 1);
    unsetenv("ATTN_KERNELS");
    other_caller = use_default;
    attn_context *own;
    assert_int_equal(attni_context_resolve(NULL, &own), ATTN_OK);
    assert_non_null(others_default);
    assert_ptr_equal(own, others_default);
    assert_int_equal(default_threads(), 2);
}

/* ---- a context's threads ---- */

typedef struct ledger {
    int num_allocations;
} ledger;

static void *allocate(void *state, size_t bytes, size_t alignment) {
    ledger *counts = state;
    ++counts->num_allocations;
    return attni_system_allocator.allocate(NULL, bytes, alignment);
}

static void deallocate(void *state, void *memory, size_t bytes, size_t alignment) {
    (void)state;
    attni_system_allocator.deallocate(NULL, memory, bytes, alignment);
}

static attn_context *shared;

static void start_threads(void) {
    assert_int_equal(attni_start_threads(shared), ATTN_OK);
}

static attn_context *context_with(ledger *counts) {
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = 2,
                                        .allocate = allocate,
                                        .deallocate = deallocate,
                                        .allocator_state = counts};
    attn_context *context;
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    counts->num_allocations = 0;
    return context;
}

static void count_item(void *data, int64_t index) {
    int *counts = data;
    ++counts[index];
}

static void threads_are_started_by_one_of_two_first_callers(void **state) {
    (void)state;
    ledger lone = {0};
    shared = context_with(&lone);
    start_threads();
    attn_context_destroy(shared);
    ledger raced = {0};
    shared = context_with(&raced);
    other_caller = start_threads;
    start_threads();
    assert_null(other_caller);
    assert_true(lone.num_allocations > 0);
    assert_int_equal(raced.num_allocations, lone.num_allocations);
    int counts[NUM_ITEMS] = {0};
    assert_int_equal(attni_parallel_for(shared, NUM_ITEMS, count_item, counts), ATTN_OK);
    for (int i = 0; i < NUM_ITEMS; ++i) {
        assert_int_equal(counts[i], 1);
    }
    attn_context_destroy(shared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_context_is_made_by_one_of_two_first_callers),
        cmocka_unit_test(threads_are_started_by_one_of_two_first_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
