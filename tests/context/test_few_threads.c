/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_few_threads.c: a system that grants fewer threads than there are CPUs. Contexts whose number of
 * threads was left to the library compute with those that could be started; a number that the caller
 * chose is an error. Linked so that threads and the number of CPUs come from this file.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "errors/counting_allocator.h"

enum { CPUS = 5, HEADS = 8, ROWS = 160, COLS = 32, VALUES = HEADS * ROWS * COLS };

static int threads_left;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    if (threads_left == 0) {
        return EAGAIN;
    }
    --threads_left;
    return __real_pthread_create(thread, attributes, start, argument);
}

int32_t __wrap_attni_cpu_count(void);
int32_t __wrap_attni_cpu_count(void) {
    return CPUS;
}

static float input[VALUES];

static attn_status attend(attn_context *context, float *out) {
    const int64_t shape[] = {HEADS, ROWS, COLS};
    attn_tensor x;
    attn_tensor y;
    assert_int_equal(attn_tensor_init(&x, input, ATTN_DTYPE_FLOAT32, 3, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&y, out, ATTN_DTYPE_FLOAT32, 3, shape), ATTN_OK);
    return attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0);
}

static int32_t threads_of(attn_context *context) {
    attn_context_info info = {.struct_size = sizeof info};
    assert_int_equal(attn_context_describe(context, &info), ATTN_OK);
    return info.num_threads;
}

static attn_context *make(counting_allocator *allocator, int32_t num_threads) {
    attn_context_config config = {.struct_size = sizeof config, .num_threads = num_threads};
    attn_context *context;
    counting_allocator_init(allocator);
    counting_allocator_use(allocator, &config);
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

static void end(attn_context *context, const counting_allocator *allocator) {
    attn_context_destroy(context);
    assert_int_equal(allocator->live_blocks, 0);
    assert_int_equal(allocator->mistakes, 0);
}

static void a_chosen_number_is_kept_or_refused(void **state) {
    float *out = *state;
    counting_allocator allocator;
    attn_context *context = make(&allocator, 3);
    threads_left = 1;
    assert_int_equal(attend(context, out), ATTN_ERROR_THREAD);
    assert_int_equal(attn_context_start(context), ATTN_ERROR_THREAD);
    assert_int_equal(threads_of(context), 3);
    threads_left = 2;
    assert_int_equal(attn_context_start(context), ATTN_OK);
    assert_int_equal(threads_of(context), 3);
    end(context, &allocator);
}

static void an_open_number_is_what_can_be_had(void **state) {
    float *out = *state;
    float *expected = out + VALUES;
    counting_allocator allocator;
    attn_context *alone = make(&allocator, 1);
    assert_int_equal(attend(alone, expected), ATTN_OK);
    end(alone, &allocator);
    for (int granted = 0; granted <= CPUS; ++granted) {
        for (int starts_first = 0; starts_first < 2; ++starts_first) {
            attn_context *context = make(&allocator, 0);
            const int32_t threads = granted + 1 < CPUS ? granted + 1 : CPUS;
            assert_int_equal(threads_of(context), CPUS);
            threads_left = granted;
            if (starts_first != 0) {
                assert_int_equal(attn_context_start(context), ATTN_OK);
                assert_int_equal(threads_of(context), threads);
            }
            memset(out, 0xff, VALUES * sizeof *out);
            assert_int_equal(attend(context, out), ATTN_OK);
            assert_memory_equal(out, expected, VALUES * sizeof *out);
            assert_int_equal(threads_of(context), threads);
            /* What could be started is kept: nothing is asked for again. */
            threads_left = 0;
            assert_int_equal(attend(context, out), ATTN_OK);
            assert_int_equal(threads_of(context), threads);
            end(context, &allocator);
        }
    }
}

/* The default context is made once: without a number in the environment it is an open one. */
static void the_default_context_goes_on_alone(void **state) {
    float *out = *state;
    threads_left = 0;
    assert_int_equal(unsetenv("ATTN_NUM_THREADS"), 0);
    assert_int_equal(attend(NULL, out), ATTN_OK);
    assert_memory_equal(out, out + VALUES, VALUES * sizeof *out);
    assert_int_equal(attn_context_start(NULL), ATTN_OK);
    assert_int_equal(threads_of(NULL), 1);
}

static int prepare(void **state) {
    for (int i = 0; i < VALUES; ++i) {
        input[i] = (float)((i * 37) % 101) / 101;
    }
    *state = malloc(2 * VALUES * sizeof(float));
    return *state == NULL;
}

static int clean_up(void **state) {
    free(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chosen_number_is_kept_or_refused),
        cmocka_unit_test(an_open_number_is_what_can_be_had),
        cmocka_unit_test(the_default_context_goes_on_alone),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
