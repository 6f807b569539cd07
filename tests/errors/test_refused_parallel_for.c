/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_refused_parallel_for.c: a caller's parallel_for that refuses the n-th piece of work of a
 * call, for n = 1, 2, ... until the call needs no more. Each refusal ends the call with
 * ATTN_ERROR_THREAD; the same call then succeeds with the right bits.
 */
#include "large_calls.h"

typedef struct moody_pool {
    int refused; /* the call that is refused, counted from 1; 0: none */
    int calls;
} moody_pool;

static int32_t moody_parallel_for(void *state, int64_t count,
                                  attn_task_fn task, void *data) {
    moody_pool *pool = state;
    if (++pool->calls == pool->refused) {
        return -3;
    }
    for (int64_t index = 0; index < count; ++index) {
        task(data, index);
    }
    return 0;
}

static void every_refusal_is_reported(void **state) {
    const large_call *call = *state;
    static float expected[LARGE_ROWS * LARGE_COLS];
    static float output[LARGE_ROWS * LARGE_COLS];
    large_call_expect(call, expected);
    moody_pool pool = {0};
    const attn_context_config params = {.struct_size = sizeof params,
                                        .parallel_for_width = 3,
                                        .engine = call->engine,
                                        .gemm = ATTN_GEMM_NATIVE,
                                        .parallel_for = moody_parallel_for,
                                        .parallel_for_state = &pool};
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    large_call_assert(call, context, expected);
    const int needed = pool.calls;
    assert_true(needed >= call->least_shared);
    for (int n = 1; n <= needed; ++n) {
        pool = (moody_pool){.refused = n};
        refusal_assert(call->name, call->run(context, output), ATTN_ERROR_THREAD,
                       "parallel_for: the caller's function returned -3");
        assert_int_equal(pool.calls, n);
        pool = (moody_pool){0};
        large_call_assert(call, context, expected);
        assert_int_equal(pool.calls, needed);
    }
    attn_context_destroy(context);
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < num_large_calls; ++i) {
        refusal_suite_add(&suite, large_calls[i].name, every_refusal_is_reported, &large_calls[i]);
    }
    return refusal_suite_run(&suite, "parallel_for that refuses");
}
