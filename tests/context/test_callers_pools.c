/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_callers_pools.c: every way a caller's parallel_for may run its tasks gives the same bits:
 * at once, backwards, late and elsewhere, on threads of its own, and from inside a task of the
 * caller. One that refuses is reported, and the context works on.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "mixed_calls.h"

static mixed_calls calls;

/* What the functions below count. */
typedef struct pool_use {
    atomic_int jobs;
    int32_t answer; /* of the one that refuses */
} pool_use;

static int32_t run_inline(void *state, int64_t count, attn_task_fn task, void *data) {
    atomic_fetch_add(&((pool_use *)state)->jobs, 1);
    for (int64_t i = 0; i < count; ++i) {
        task(data, i);
    }
    return 0;
}

static int32_t run_in_reverse(void *state, int64_t count, attn_task_fn task, void *data) {
    atomic_fetch_add(&((pool_use *)state)->jobs, 1);
    for (int64_t i = count; i > 0; --i) {
        task(data, i - 1);
    }
    return 0;
}

/* A job of threads started for it alone. */
typedef struct own_job {
    attn_task_fn task;
    void *data;
    int64_t count;
    useconds_t delay;
    _Atomic int64_t next;
} own_job;

static void *run_job(void *data) {
    own_job *job = data;
    usleep(job->delay);
    for (int64_t i = atomic_fetch_add(&job->next, 1); i < job->count;
         i = atomic_fetch_add(&job->next, 1)) {
        job->task(job->data, i);
    }
    return NULL;
}

/* The calling thread runs no task. Non-zero if no thread could be started. */
static int32_t run_on_threads(own_job *job, int num_threads) {
    pthread_t threads[3];
    int started = 0;
    while (started < num_threads && pthread_create(&threads[started], NULL, run_job, job) == 0) {
        ++started;
    }
    for (int i = 0; i < started; ++i) {
        pthread_join(threads[i], NULL);
    }
    return started == 0;
}

static int32_t run_late(void *state, int64_t count, attn_task_fn task, void *data) {
    atomic_fetch_add(&((pool_use *)state)->jobs, 1);
    own_job job = {.task = task, .data = data, .count = count, .delay = 2000};
    return run_on_threads(&job, 1);
}

static int32_t run_on_three_threads(void *state, int64_t count, attn_task_fn task, void *data) {
    atomic_fetch_add(&((pool_use *)state)->jobs, 1);
    own_job job = {.task = task, .data = data, .count = count};
    return run_on_threads(&job, 3);
}

static int32_t refuse(void *state, int64_t count, attn_task_fn task, void *data) {
    pool_use *use = state;
    return use->answer != 0 ? use->answer : run_inline(state, count, task, data);
}

static attn_context *context_with(attn_parallel_for_fn parallel_for, pool_use *use) {
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .parallel_for_width = 3,
                                          .gemm = ATTN_GEMM_NATIVE,
                                          .parallel_for = parallel_for,
                                          .parallel_for_state = use};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    return context;
}

static const attn_parallel_for_fn functions[] = {run_inline, run_in_reverse, run_late,
                                                 run_on_three_threads};
enum { NUM_FUNCTIONS = sizeof functions / sizeof functions[0] };

static void tasks_may_run_in_any_order_and_place(void **state) {
    (void)state;
    void *memory = malloc(MIXED_MOST_BYTES);
    assert_non_null(memory);
    for (int f = 0; f < NUM_FUNCTIONS; ++f) {
        pool_use use = {0};
        attn_context *context = context_with(functions[f], &use);
        for (int i = 0; i < mixed_calls_count(); ++i) {
            if (mixed_call_mismatch(&calls, context, i, memory) != 0) {
                fail_msg("parallel_for %d, call %d: other bits than a lone caller's", f, i);
            }
        }
        attn_context_destroy(context);
        assert_true(atomic_load(&use.jobs) > 0);
    }
    free(memory);
}

/* ---- calls inside the caller's own tasks ---- */

typedef struct outer_work {
    attn_context *context;
    atomic_int mismatches;
} outer_work;

static void call_inside_a_task(void *data, int64_t index) {
    outer_work *work = data;
    void *memory = malloc(MIXED_MOST_BYTES);
    const int which = (int)(index % mixed_calls_count());
    const int wrong =
        memory == NULL || mixed_call_mismatch(&calls, work->context, which, memory) != 0;
    atomic_fetch_add(&work->mismatches, wrong);
    free(memory);
}

static void calls_may_be_made_inside_tasks_of_the_same_pool(void **state) {
    (void)state;
    for (int f = 0; f < NUM_FUNCTIONS; ++f) {
        pool_use use = {0};
        outer_work work = {.context = context_with(functions[f], &use)};
        assert_int_equal(functions[f](&use, 2 * mixed_calls_count(), call_inside_a_task, &work), 0);
        attn_context_destroy(work.context);
        assert_int_equal(atomic_load(&work.mismatches), 0);
        assert_true(atomic_load(&use.jobs) > 1);
    }
}

/* ---- refusal ---- */

static void refused_calls_fail_and_the_next_ones_work(void **state) {
    (void)state;
    void *memory = malloc(MIXED_MOST_BYTES);
    assert_non_null(memory);
    pool_use use = {0};
    attn_context *context = context_with(refuse, &use);
    int refused = 0;
    for (int i = 0; i < mixed_calls_count(); ++i) {
        use.answer = -3;
        const attn_status status = mixed_call_run(&calls, context, calls.layer, i, memory);
        if (status != ATTN_OK) {
            assert_int_equal(status, ATTN_ERROR_THREAD);
            assert_string_equal(attn_last_error(),
                                "parallel_for: the caller's function returned -3");
            ++refused;
        }
        use.answer = 0;
        assert_int_equal(mixed_call_mismatch(&calls, context, i, memory), 0);
    }
    attn_context_destroy(context);
    free(memory);
    assert_in_range(refused, 1, mixed_calls_count() - 1);
}

static int prepare(void **state) {
    (void)state;
    mixed_calls_create(&calls);
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    mixed_calls_destroy(&calls);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_may_run_in_any_order_and_place),
        cmocka_unit_test(calls_may_be_made_inside_tasks_of_the_same_pool),
        cmocka_unit_test(refused_calls_fail_and_the_next_ones_work),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
