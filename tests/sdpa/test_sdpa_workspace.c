/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_workspace.c: a workspace of exactly the bytes asked for, between pages that may not be
 * touched, is enough; and what the fused engine asks for does not grow with L x S.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/guard_pages.h"
#include "support/random_tensor.h"

static attn_context *context_of(int32_t engine, int32_t num_threads, const char *kernels) {
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = num_threads,
                                          .engine = engine,
                                          .kernels = kernels};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    return context;
}

/* ---- over-runs ---- */

typedef struct sizes {
    int64_t heads, kv_heads, rows, keys, features, value_features;
} sizes;

/* Panels of every width, one row, splits of the keys, columns that are no whole chunks. */
static const sizes shapes[] = {
    {1, 1, 1, 1, 1, 1},       {2, 1, 5, 37, 3, 5},      {3, 3, 70, 130, 64, 64},
    {1, 1, 1, 5000, 16, 17},  {4, 1, 1, 4500, 16, 130}, {2, 2, 150, 600, 40, 33},
    {6, 2, 100, 257, 8, 129},
};
enum { NUM_SHAPES = sizeof shapes / sizeof shapes[0] };

enum weights { WEIGHTS_NONE, WEIGHTS_PER_HEAD, WEIGHTS_AVERAGED, NUM_WEIGHTS };

/* A layout other than contiguous makes the engine pack and stage. */
typedef struct call {
    tensor_pool pool;
    attn_tensor *query, *key, *value, *output;
    attn_sdpa_params params;
} call;

static void make_call(call *made, const sizes *s, enum tensor_layout layout, enum weights weights) {
    random_state random = random_seeded(5);
    tensor_pool *pool = &made->pool;
    *made = (call){
        .params = {.struct_size = sizeof made->params, .enable_gqa = s->heads != s->kv_heads}};
    const int64_t query[] = {s->heads, s->rows, s->features};
    const int64_t key[] = {s->kv_heads, s->keys, s->features};
    const int64_t value[] = {s->kv_heads, s->keys, s->value_features};
    const int64_t output[] = {s->heads, s->rows, s->value_features};
    const int64_t matrix[] = {s->heads, s->rows, s->keys};
    made->query = pool_input(pool, ATTN_DTYPE_FLOAT32, 3, query, layout);
    made->key = pool_input(pool, ATTN_DTYPE_FLOAT32, 3, key, layout);
    made->value = pool_input(pool, ATTN_DTYPE_FLOAT32, 3, value, layout);
    made->output = pool_output(pool, ATTN_DTYPE_FLOAT32, 3, output, layout);
    attn_tensor *mask = pool_input(pool, ATTN_DTYPE_FLOAT32, 2, matrix + 1, layout);
    const attn_tensor *filled[] = {made->query, made->key, made->value, mask};
    for (int i = 0; i < 4; ++i) {
        random_fill(filled[i], &random, -1, 1, 0);
    }
    made->params.mask = mask;
    made->params.mask_kind = ATTN_MASK_ADDITIVE;
    if (weights == WEIGHTS_AVERAGED) {
        made->params.weights = pool_output(pool, ATTN_DTYPE_FLOAT32, 2, matrix + 1, layout);
    } else if (weights == WEIGHTS_PER_HEAD) {
        made->params.weights = pool_output(pool, ATTN_DTYPE_FLOAT32, 3, matrix, layout);
    }
}

static size_t bytes_for(attn_context *context, const call *made) {
    size_t bytes;
    assert_int_equal(attn_sdpa_workspace_bytes(context, made->query, made->key, made->value,
                                               &made->params, made->output, &bytes),
                     ATTN_OK);
    return bytes;
}

/* Once with the workspace's last byte before a page that may not be touched, once with its first
 * behind one. */
static void run_between_pages(attn_context *context, const call *made) {
    const size_t bytes = bytes_for(context, made);
    const guard_pages pages = guard_pages_map(bytes);
    unsigned char *places[] = {pages.bytes, guard_pages_last(&pages, bytes)};
    for (int i = 0; i < 2; ++i) {
        assert_int_equal(attn_sdpa(context, made->query, made->key, made->value, &made->params,
                                   made->output, places[i], bytes),
                         ATTN_OK);
    }
    guard_pages_unmap(&pages);
}

static void run_all_calls(attn_context *context) {
    static const enum tensor_layout layouts[] = {LAYOUT_CONTIGUOUS, LAYOUT_TRANSPOSED,
                                                 LAYOUT_STEP_TWO};
    static call made;
    for (int s = 0; s < NUM_SHAPES; ++s) {
        for (int layout = 0; layout < 3; ++layout) {
            for (enum weights weights = 0; weights < NUM_WEIGHTS; ++weights) {
                make_call(&made, &shapes[s], layouts[layout], weights);
                run_between_pages(context, &made);
                pool_destroy(&made.pool);
            }
        }
    }
}

static void workspace_of_the_bytes_asked_for_is_enough(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
            attn_context *context = context_of(engine, 3, attn_kernels_name(kernels));
            run_all_calls(context);
            attn_context_destroy(context);
        }
    }
}

/* ---- sizes ---- */

enum { MOST_BYTES = 16 << 20, SLACK_BYTES = 64 << 10 };

/* What a call of one head would need; there are no data. */
static size_t bytes_of_size(attn_context *context, int64_t rows, int64_t keys,
                            enum weights weights) {
    attn_tensor query, key, output, matrix;
    const int64_t query_shape[] = {1, rows, 64};
    const int64_t key_shape[] = {1, keys, 64};
    const int64_t matrix_shape[] = {1, rows, keys};
    const int is_averaged = weights == WEIGHTS_AVERAGED;
    attn_sdpa_params params = {.struct_size = sizeof params};
    assert_int_equal(attn_tensor_init(&query, NULL, ATTN_DTYPE_FLOAT32, 3, query_shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&key, NULL, ATTN_DTYPE_FLOAT32, 3, key_shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&output, NULL, ATTN_DTYPE_FLOAT32, 3, query_shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&matrix, NULL, ATTN_DTYPE_FLOAT32, 3 - is_averaged,
                                      matrix_shape + is_averaged),
                     ATTN_OK);
    params.weights = weights != WEIGHTS_NONE ? &matrix : NULL;
    size_t bytes;
    assert_int_equal(
        attn_sdpa_workspace_bytes(context, &query, &key, &key, &params, &output, &bytes), ATTN_OK);
    return bytes;
}

typedef void (*bytes_check)(attn_context *context, size_t most);

/* With one thread and with three, which may need three times as much. */
static void for_every_context(bytes_check check) {
    for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
        for (int32_t threads = 1; threads <= 3; threads += 2) {
            attn_context *context =
                context_of(ATTN_ENGINE_FUSED, threads, attn_kernels_name(kernels));
            check(context, (size_t)threads * MOST_BYTES);
            attn_context_destroy(context);
        }
    }
}

/* A matrix of scores would take 1 GiB at 16384 x 16384. Blocks of very long calls are alike but for
 * a vector of rows. */
static void check_bytes(attn_context *context, size_t most) {
    static const int64_t lengths[] = {1, 64, 1000, 4096, 16384, 1 << 20};
    for (int i = 0; i < 36; ++i) {
        const size_t bytes = bytes_of_size(context, lengths[i / 6], lengths[i % 6], WEIGHTS_NONE);
        assert_true(bytes > 0 && bytes <= most);
    }
    const size_t bytes = bytes_of_size(context, 16384, 16384, WEIGHTS_NONE);
    print_message("%zu bytes for 16384 x 16384, at most %zu\n", bytes, most);
    assert_true(bytes_of_size(context, 1 << 22, 16384, WEIGHTS_NONE) <= bytes + SLACK_BYTES);
    assert_true(bytes_of_size(context, 16384, 1 << 22, WEIGHTS_NONE) <= bytes + SLACK_BYTES);
}

static void fused_workspace_is_small_and_does_not_grow_with_rows_or_keys(void **state) {
    (void)state;
    for_every_context(check_bytes);
}

/* Weights can be stored once a row's sum is known, so a panel has all keys: S times a few rows, not
 * times L. */
static void check_bytes_with_weights(attn_context *context, size_t most) {
    for (enum weights weights = WEIGHTS_PER_HEAD; weights < NUM_WEIGHTS; ++weights) {
        const size_t bytes = bytes_of_size(context, 1 << 16, 4096, weights);
        assert_true(bytes > 0 && bytes <= most);
        assert_true(bytes_of_size(context, 4096, 4096, weights) <= most);
        assert_true(bytes_of_size(context, 1 << 22, 4096, weights) <= bytes + SLACK_BYTES);
    }
}

static void fused_workspace_with_weights_does_not_grow_with_rows(void **state) {
    (void)state;
    for_every_context(check_bytes_with_weights);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workspace_of_the_bytes_asked_for_is_enough),
        cmocka_unit_test(fused_workspace_is_small_and_does_not_grow_with_rows_or_keys),
        cmocka_unit_test(fused_workspace_with_weights_does_not_grow_with_rows),
    };
    return cmocka_run_group_tests_name("sdpa_workspace", tests, NULL, NULL);
}
