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

static int32_t moody_parallel_for(void *state, int64_t count, attn_task_fn task, void *data) {
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
    assert_true(!call->shared_once || needed == 1);
    for (int n = 1; n <= needed; ++n) {
        pool = (moody_pool){.refused = n};
        refusal_assert(call->name, call->run(context, output), ATTN_ERROR_THREAD,
                       "parallel_for: the caller's function returned -3");
        assert_int_equal(pool.calls, n);
        pool = (moody_pool){0};
        large_call_assert(call, context, expected);
        assert_int_equal(pool.calls, needed);
    }
    /* A pool that would refuse what is not asked of it has refused nothing. */
    pool = (moody_pool){.refused = needed + 1};
    large_call_assert(call, context, expected);
    assert_int_equal(pool.calls, needed);
    attn_context_destroy(context);
}

/* Fused attention of `heads` heads, in all outputs it may have. */
typedef struct fused_call {
    int64_t heads;
    int64_t rows;
    int64_t keys;
    attn_sdpa_params options;
} fused_call;

enum { MOST_HEADS = 4, MOST_ROWS = 300, MOST_KEYS = 200, FEATURES = 8 };

static const fused_call fused_calls[] = {
    {1, 300, 200, {.is_causal = 0}},
    {1, 300, 200, {.is_causal = 1}},
    {4, 200, 190, {.is_causal = 1, .align_end = 1}},
    {3, 230, 120, {.softcap = 3}},
    {2, 257, 199, {.set = ATTN_SDPA_SET_WINDOW, .window_left = 9, .window_right = 2}},
    {4, 196, 133, {.normalizer = ATTN_NORMALIZER_SIGMOID}},
};

/* One range of keys for each block of rows, so that nothing is left to be put together. */
static void one_step_is_asked_for_once(void **state) {
    (void)state;
    static float query[MOST_HEADS * MOST_ROWS * FEATURES], key[MOST_HEADS * MOST_KEYS * FEATURES],
        outputs[2][MOST_HEADS * MOST_ROWS * FEATURES], lse_data[MOST_HEADS * MOST_ROWS],
        weight_data[MOST_HEADS * MOST_ROWS * MOST_KEYS];
    refusal_numbers(query, MOST_HEADS * MOST_ROWS * FEATURES, 1);
    refusal_numbers(key, MOST_HEADS * MOST_KEYS * FEATURES, 2);
    for (size_t i = 0; i < sizeof fused_calls / sizeof fused_calls[0]; ++i) {
        const fused_call *call = &fused_calls[i];
        moody_pool pool = {0};
        const attn_context_config config = {.struct_size = sizeof config,
                                            .parallel_for_width = 3,
                                            .engine = ATTN_ENGINE_FUSED,
                                            .parallel_for = moody_parallel_for,
                                            .parallel_for_state = &pool};
        attn_context *context;
        refusal_assert_ok("attn_context_create", attn_context_create(&config, &context));
        const int32_t dtype = ATTN_DTYPE_FLOAT32;
        const int64_t rows[] = {call->heads, call->rows, FEATURES};
        const int64_t keys[] = {call->heads, call->keys, FEATURES};
        const int64_t scores[] = {call->heads, call->rows, call->keys};
        const attn_tensor q = refusal_view(query, dtype, 3, rows);
        const attn_tensor k = refusal_view(key, dtype, 3, keys);
        const attn_tensor lse = refusal_view(lse_data, dtype, 2, rows);
        const attn_tensor weights = refusal_view(weight_data, dtype, 3, scores);
        attn_sdpa_report report = {.struct_size = sizeof report};
        attn_sdpa_params params = call->options;
        params.struct_size = sizeof params;
        params.lse = params.normalizer == ATTN_NORMALIZER_SOFTMAX ? &lse : NULL;
        params.weights = &weights;
        params.report = &report;
        for (int refused = 0; refused <= 2; refused += 2) {
            pool = (moody_pool){.refused = refused};
            const attn_tensor out = refusal_view(outputs[refused / 2], dtype, 3, rows);
            refusal_assert_ok("attn_sdpa", attn_sdpa(context, &q, &k, &k, &params, &out, NULL, 0));
            assert_int_equal(pool.calls, 1);
        }
        const int64_t blocks = (call->rows + report.row_block - 1) / report.row_block;
        assert_int_equal(report.num_blocks, call->heads * blocks);
        assert_memory_equal(outputs[0], outputs[1],
                            (size_t)(call->heads * call->rows * FEATURES) * sizeof(float));
        attn_context_destroy(context);
    }
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < num_large_calls; ++i) {
        refusal_suite_add(&suite, large_calls[i].name, every_refusal_is_reported, &large_calls[i]);
    }
    refusal_suite_add(&suite, "one_step_is_asked_for_once", one_step_is_asked_for_once, NULL);
    return refusal_suite_run(&suite, "parallel_for that refuses");
}
