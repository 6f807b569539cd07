/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_program.c: contexts, cases, failures.
 */
#include "mha_cache_program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

void mha_cache_fail(const mha_cache_case *built, const char *message) {
    const factor_set set = mha_cache_factor_set();
    factor_case chosen = *built->chosen;
    char options[600];
    if (chosen.level[CACHE_FORM] == FORM_RAGGED) {
        chosen.level[CACHE_FORM] = FORM_BATCH_FIRST;
    }
    describe_case(&set, &chosen, options, sizeof options);
    fail_msg("%s, in a step of %s: %s", message, built->step_name, options);
}

static void assert_same_memory(const mha_cache_case *built, const char *name,
                               const attn_tensor *actual, const attn_tensor *expected) {
    int64_t index[4] = {0};
    if (actual == NULL) {
        return;
    }
    do {
        if (memcmp(oracle_address(actual, index), oracle_address(expected, index),
                   attn_dtype_size_bytes(actual->dtype)) != 0) {
            char message[200];
            snprintf(message, sizeof message, "%s[%lld, %lld, %lld, %lld] differs", name,
                     (long long)index[0], (long long)index[1], (long long)index[2],
                     (long long)index[3]);
            mha_cache_fail(built, message);
        }
    } while (oracle_next_index(actual->rank, actual->shape, index));
}

void mha_cache_assert_same_caches(const mha_cache_case *built) {
    const cache_memory *actual = &built->by_layer, *expected = &built->by_calls;
    assert_same_memory(built, "cache.key", actual->key, expected->key);
    assert_same_memory(built, "cache.value", actual->value, expected->value);
    for (int i = 0; i < 2; ++i) {
        assert_same_memory(built, "scale", actual->scale[i], expected->scale[i]);
        assert_same_memory(built, "zero", actual->zero[i], expected->zero[i]);
    }
}

void mha_cache_forward(mha_cache_case *built, attn_context *context, const attn_tensor *query,
                       const attn_tensor *key, const attn_tensor *value,
                       const attn_mha_params *params, const attn_tensor *output,
                       tensor_pool *pool) {
    char message[300];
    void *workspace = NULL;
    size_t bytes = 0;
    if (cache_level(built, CACHE_WORKSPACE) == WORKSPACE_EXACT) {
        assert_ok(attn_mha_workspace_bytes(context, built->layer, query, key, value, params, output,
                                           &bytes));
        workspace = malloc(bytes + 1);
        assert_non_null(workspace);
    }
    pool_begin(&built->pool);
    pool_begin(pool);
    assert_ok(attn_mha_forward(context, built->layer, query, key, value, params, output, workspace,
                               bytes));
    if (pool_check(&built->pool, message, sizeof message) != 0 ||
        pool_check(pool, message, sizeof message) != 0) {
        mha_cache_fail(built, message);
    }
    free(workspace);
}

/* ---- cases ---- */

static mha_cache_run_fn run_case;
static int is_full;

static attn_context *create_context(int32_t num_threads, int32_t engine, const char *kernels) {
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = num_threads,
                                        .engine = engine,
                                        .gemm = ATTN_GEMM_NATIVE,
                                        .kernels = kernels};
    attn_context *context = NULL;
    assert_ok(attn_context_create(&config, &context));
    return context;
}

static void run_cases(const char *kernels, uint64_t seed) {
    const factor_set set = mha_cache_factor_set();
    attn_context *contexts[2][NUM_CACHE_THREADS];
    for (int c = 0; c < NUM_CACHE_THREADS; ++c) {
        contexts[0][c] = create_context(1 + 2 * c, ATTN_ENGINE_FUSED, kernels);
        contexts[1][c] = create_context(1 + 2 * c, ATTN_ENGINE_BLAS, kernels);
    }
    covering_array array = covering_array_create(&set, seed);
    assert_int_equal(array.count.num_missing, 0);
    for (int64_t i = 0; i < array.num_cases; ++i) {
        const factor_case *chosen = &array.cases[i];
        attn_context **of_engine = contexts[chosen->level[CACHE_ENGINE] >= CACHE_NATIVE_FLOAT32];
        run_case(of_engine[chosen->level[CACHE_THREADS]], of_engine[0], chosen, seed + (uint64_t)i);
    }
    print_message("%s: %lld cases, %d settings, strength %d\n", kernels, (long long)array.num_cases,
                  set.count, test_strength());
    covering_array_destroy(&array);
    for (int c = 0; c < NUM_CACHE_THREADS; ++c) {
        attn_context_destroy(contexts[0][c]);
        attn_context_destroy(contexts[1][c]);
    }
}

static void every_pair_of_settings(void **state) {
    (void)state;
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        for (uint64_t seed = 1; seed <= (is_full ? 12 : 1); ++seed) {
            run_cases(attn_kernels_name(i), 1000 * seed + (uint64_t)i);
        }
    }
}

int mha_cache_main(int argc, char **argv, const char *name, mha_cache_run_fn run) {
    is_full = argc > 1 && strcmp(argv[1], "--full") == 0;
    run_case = run;
    if (argc > 1 && !is_full) {
        print_error("usage: test_%s [--full]\n", name);
        return 2;
    }
    const struct CMUnitTest tests[] = {{name, every_pair_of_settings, NULL, NULL, NULL}};
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}
