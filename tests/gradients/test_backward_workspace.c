/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_workspace.c: a workspace of exactly the bytes asked for, between pages that may not
 * be touched, is enough, whatever is wanted and however it lies; and what is asked for does not grow
 * with L x S.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/guard_pages.h"
#include "support/random_tensor.h"

typedef struct sizes {
    int64_t heads, kv_heads, rows, keys, features, value_features;
} sizes;

/* Blocks of rows and keys that are whole or not, one of each, none; no features; columns that are no whole
 * strips; heads that share keys, by item and by thread. */
static const sizes shapes[] = {
    {1, 1, 1, 1, 1, 1},     {2, 1, 5, 37, 3, 5},     {2, 2, 140, 300, 16, 16},
    {1, 1, 1, 900, 16, 17}, {4, 2, 133, 257, 8, 33}, {1, 1, 270, 600, 9, 8},
    {2, 2, 9, 0, 4, 3},     {2, 2, 9, 7, 0, 3},
};
enum { NUM_SHAPES = sizeof shapes / sizeof shapes[0] };

/* What is computed with, and where gradients are rounded or added. */
typedef struct way {
    int32_t dtype, gradient_dtype;
    enum tensor_layout layout;
    bool accumulates, has_options;
} way;

static const way ways[] = {
    {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT32, LAYOUT_CONTIGUOUS, false, false},
    {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT32, LAYOUT_STEP_TWO, true, true},
    {ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_BFLOAT16, LAYOUT_TRANSPOSED, true, true},
    {ATTN_DTYPE_FLOAT16, ATTN_DTYPE_FLOAT32, LAYOUT_CONTIGUOUS, false, true},
    {ATTN_DTYPE_FLOAT64, ATTN_DTYPE_FLOAT64, LAYOUT_REVERSED, false, true},
};
enum { NUM_WAYS = sizeof ways / sizeof ways[0] };

typedef struct call {
    tensor_pool pool;
    attn_tensor *query, *key, *value, *output;
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
} call;

/* What is read, with numbers. */
static attn_tensor *input(call *made, random_state *random, int32_t dtype, int32_t rank,
                          const int64_t *shape, enum tensor_layout layout) {
    attn_tensor *tensor = pool_input(&made->pool, dtype, rank, shape, layout);
    random_fill(tensor, random, -1, 1, 0);
    return tensor;
}

/* A gradient of it, with numbers that it may be added to. */
static attn_tensor *wanted(call *made, random_state *random, const way *in, const attn_tensor *of) {
    attn_tensor *tensor =
        pool_output(&made->pool, in->gradient_dtype, of->rank, of->shape, in->layout);
    random_fill(tensor, random, -1, 1, 0);
    return tensor;
}

static void add_options(call *made, random_state *random, const way *in, const sizes *s) {
    const int64_t matrix[] = {s->heads, s->rows, s->keys};
    const int64_t table[] = {s->heads, 7};
    made->params.mask = input(made, random, in->dtype, 2, matrix + 1, in->layout);
    made->params.mask_kind = ATTN_MASK_ADDITIVE;
    made->params.bias = input(made, random, in->dtype, 3, matrix, in->layout);
    made->params.position_bias = input(made, random, in->dtype, 2, table, in->layout);
    made->params.alibi_slopes = input(made, random, in->dtype, 1, table, in->layout);
    made->params.sinks = input(made, random, in->dtype, 1, table, in->layout);
    made->params.softcap = 2;
    made->params.is_causal = 1;
    made->gradients.weights = input(made, random, in->gradient_dtype, 3, matrix, in->layout);
    made->gradients.mask = wanted(made, random, in, made->params.mask);
    made->gradients.bias = wanted(made, random, in, made->params.bias);
    made->gradients.position_bias = wanted(made, random, in, made->params.position_bias);
    made->gradients.alibi_slopes = wanted(made, random, in, made->params.alibi_slopes);
    made->gradients.sinks = wanted(made, random, in, made->params.sinks);
}

/* Behind the forward call. */
static void make_call(call *made, attn_context *context, const sizes *s, const way *in) {
    random_state random = random_seeded(5);
    *made = (call){
        .params = {.struct_size = sizeof made->params, .enable_gqa = s->heads != s->kv_heads},
        .gradients = {.struct_size = sizeof made->gradients, .accumulate = in->accumulates}};
    const int64_t query[] = {s->heads, s->rows, s->features};
    const int64_t key[] = {s->kv_heads, s->keys, s->features};
    const int64_t value[] = {s->kv_heads, s->keys, s->value_features};
    const int64_t output[] = {s->heads, s->rows, s->value_features};
    const int32_t score_dtype =
        in->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    made->query = input(made, &random, in->dtype, 3, query, in->layout);
    made->key = input(made, &random, in->dtype, 3, key, in->layout);
    made->value = input(made, &random, in->dtype, 3, value, in->layout);
    made->output = pool_output(&made->pool, in->dtype, 3, output, in->layout);
    made->params.lse = pool_output(&made->pool, score_dtype, 2, output, LAYOUT_CONTIGUOUS);
    made->gradients.output = input(made, &random, in->dtype, 3, output, in->layout);
    made->gradients.lse = input(made, &random, score_dtype, 2, output, LAYOUT_CONTIGUOUS);
    made->gradients.query = wanted(made, &random, in, made->query);
    made->gradients.key = wanted(made, &random, in, made->key);
    made->gradients.value = wanted(made, &random, in, made->value);
    if (in->has_options) {
        add_options(made, &random, in, s);
    }
    assert_int_equal(attn_sdpa(context, made->query, made->key, made->value, &made->params,
                               made->output, NULL, 0),
                     ATTN_OK);
}

static size_t bytes_for(attn_context *context, const call *made) {
    size_t bytes;
    assert_int_equal(attn_sdpa_backward_workspace_bytes(context, made->query, made->key,
                                                        made->value, &made->params, made->output,
                                                        &made->gradients, &bytes),
                     ATTN_OK);
    return bytes;
}

/* Once with the workspace's last byte before a page that may not be touched, once with its first
 * behind one; and nothing is written but what is wanted. */
static void run_between_pages(attn_context *context, call *made) {
    const size_t bytes = bytes_for(context, made);
    const guard_pages pages = guard_pages_map(bytes);
    unsigned char *places[] = {pages.bytes, guard_pages_last(&pages, bytes)};
    char message[200] = "";
    for (int i = 0; i < 2; ++i) {
        pool_begin(&made->pool);
        assert_int_equal(attn_sdpa_backward(context, made->query, made->key, made->value,
                                            &made->params, made->output, &made->gradients,
                                            places[i], bytes),
                         ATTN_OK);
        if (pool_check(&made->pool, message, sizeof message) != 0) {
            fail_msg("%s", message);
        }
    }
    guard_pages_unmap(&pages);
}

static attn_context *context_of(int32_t num_threads, const char *kernels) {
    const attn_context_config settings = {
        .struct_size = sizeof settings, .num_threads = num_threads, .kernels = kernels};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    return context;
}

/* Every way with the first kernels; with others, whose plans are the same, one for each shape. */
static void workspace_of_the_bytes_asked_for_is_enough(void **state) {
    (void)state;
    static call made;
    for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
        attn_context *alone = context_of(1, attn_kernels_name(kernels));
        attn_context *together = context_of(3, attn_kernels_name(kernels));
        for (int i = 0; i < NUM_SHAPES * NUM_WAYS; ++i) {
            const int shape = i / NUM_WAYS, in = i % NUM_WAYS;
            if (kernels == 0 || (shape + kernels) % NUM_WAYS == in) {
                make_call(&made, alone, &shapes[shape], &ways[in]);
                run_between_pages(in % 2 == 0 ? alone : together, &made);
                pool_destroy(&made.pool);
            }
        }
        attn_context_destroy(alone);
        attn_context_destroy(together);
    }
}

/* One head: threads share its keys, and have a number for each block of them. */
static void workspace_does_not_grow_with_the_scores(void **state) {
    (void)state;
    attn_context *context = context_of(4, NULL);
    size_t bytes[2];
    for (int twice = 0; twice <= 1; ++twice) {
        const int64_t length = INT64_C(65536) << twice;
        const int64_t shape[] = {length, 64};
        attn_tensor tensor, lse;
        assert_int_equal(attn_tensor_init(&tensor, NULL, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
        assert_int_equal(attn_tensor_init(&lse, NULL, ATTN_DTYPE_FLOAT32, 1, shape), ATTN_OK);
        const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &lse};
        const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                               .output = &tensor,
                                               .query = &tensor,
                                               .key = &tensor,
                                               .value = &tensor};
        assert_int_equal(attn_sdpa_backward_workspace_bytes(context, &tensor, &tensor, &tensor,
                                                            &params, &tensor, &gradients,
                                                            &bytes[twice]),
                         ATTN_OK);
        /* Beside the threads' own: a double for each row and a counter for each block of keys. */
        assert_in_range(bytes[twice], 1, 16 * length + 8 * (1 << 20));
    }
    assert_true(bytes[1] <= 2 * bytes[0]);
    attn_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workspace_of_the_bytes_asked_for_is_enough),
        cmocka_unit_test(workspace_does_not_grow_with_the_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
