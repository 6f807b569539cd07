/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_explain.c: what attn_sdpa_explain says before a call is what the run then records.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/same_report.h"

enum { NUM_ENGINES = ATTN_ENGINE_FUSED + 1, NUM_GEMMS = ATTN_GEMM_NATIVE + 1 };
enum { BATCH = 2, HEADS = 3, TGT = 37, SRC = 41, FEATURES = 8, ELEMENTS = 1 << 16 };

/* How a (batch, head, row, feature) tensor lies in memory. */
typedef enum layout { ROWS_DENSE, COLS_DENSE, EVERY_SECOND, REVERSED, NUM_LAYOUTS } layout;

static attn_tensor make_view(float *storage, layout which, int64_t rows) {
    const int64_t shape[] = {BATCH, HEADS, rows, FEATURES};
    const int64_t matrix = 2 * rows * FEATURES;
    int64_t strides[] = {HEADS * matrix, matrix, FEATURES, 1};
    if (which == COLS_DENSE) {
        strides[2] = 1;
        strides[3] = rows;
    } else if (which == EVERY_SECOND) {
        strides[2] = 2 * FEATURES;
        strides[3] = 2;
    } else if (which == REVERSED) {
        strides[3] = -1;
        storage += FEATURES - 1;
    }
    attn_tensor view;
    assert_int_equal(
        attn_tensor_init_strided(&view, storage, ATTN_DTYPE_FLOAT32, 4, shape, strides), ATTN_OK);
    return view;
}

static void explain_agrees(attn_context *context, const attn_tensor views[4], int32_t is_causal) {
    attn_sdpa_report told = {.struct_size = sizeof told};
    attn_sdpa_report ran = {.struct_size = sizeof ran};
    attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = is_causal};
    size_t bytes;
    assert_int_equal(
        attn_sdpa_explain(context, &views[0], &views[1], &views[2], &params, &views[3], &told),
        ATTN_OK);
    assert_int_equal(attn_sdpa_workspace_bytes(context, &views[0], &views[1], &views[2], &params,
                                               &views[3], &bytes),
                     ATTN_OK);
    params.report = &ran;
    assert_int_equal(
        attn_sdpa(context, &views[0], &views[1], &views[2], &params, &views[3], NULL, 0), ATTN_OK);
    assert_same_report(&told, &ran);
    assert_int_equal(told.workspace_bytes, bytes);
    assert_true(told.num_blocks >= BATCH * HEADS);
}

static void explain_every_layout_and_context_agrees_with_the_run(void **state) {
    (void)state;
    float *storage = calloc(4 * ELEMENTS, sizeof *storage);
    assert_non_null(storage);
    int calls = 0;
    const char *kernels;
    for (int32_t k = 0; (kernels = attn_kernels_name(k)) != NULL; ++k) {
        for (int32_t setting = 0; setting < NUM_ENGINES * NUM_GEMMS; ++setting) {
            const attn_context_config settings = {.struct_size = sizeof settings,
                                                  .engine = setting / NUM_GEMMS,
                                                  .gemm = setting % NUM_GEMMS,
                                                  .kernels = kernels};
            attn_context *context;
            if (attn_context_create(&settings, &context) == ATTN_ERROR_UNSUPPORTED) {
                printf("left out: %s\n", attn_last_error());
                continue;
            }
            for (int which = 0; which < NUM_LAYOUTS * NUM_LAYOUTS; ++which) {
                const layout inputs = (layout)(which / NUM_LAYOUTS);
                const layout others = (layout)(which % NUM_LAYOUTS);
                const attn_tensor views[] = {make_view(storage, inputs, TGT),
                                             make_view(storage + ELEMENTS, others, SRC),
                                             make_view(storage + 2 * ELEMENTS, inputs, SRC),
                                             make_view(storage + 3 * ELEMENTS, others, TGT)};
                explain_agrees(context, views, which % 2);
                ++calls;
            }
            attn_context_destroy(context);
        }
    }
    printf("%d calls explained and run\n", calls);
    free(storage);
}

static void explain_names_kernels_and_products_of_its_context(void **state) {
    (void)state;
    float data[FEATURES] = {0};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){1, FEATURES}),
                     ATTN_OK);
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .engine = ATTN_ENGINE_BLAS,
                                          .gemm = ATTN_GEMM_NATIVE,
                                          .kernels = "baseline"};
    attn_context *context;
    if (strcmp(attn_kernels_name(0), "neon") == 0) {
        printf("left out: this machine has no baseline kernels\n");
        return;
    }
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    attn_sdpa_report report = {.struct_size = sizeof report};
    assert_int_equal(attn_sdpa_explain(context, &view, &view, &view, NULL, &view, &report),
                     ATTN_OK);
    assert_string_equal(report.kernels, "baseline");
    assert_int_equal(report.engine, ATTN_ENGINE_BLAS);
    assert_int_equal(report.gemm, ATTN_GEMM_NATIVE);
    assert_int_equal(report.depends_on_blas_threads, 0);
    attn_context_destroy(context);
}

static void explain_without_queries_plans_no_blocks_and_no_memory(void **state) {
    (void)state;
    attn_tensor query;
    attn_tensor key;
    assert_int_equal(attn_tensor_init(&query, NULL, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){0, 4}),
                     ATTN_OK);
    assert_int_equal(attn_tensor_init(&key, NULL, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){5, 4}),
                     ATTN_OK);
    attn_sdpa_report report = {.struct_size = sizeof report};
    assert_int_equal(attn_sdpa_explain(NULL, &query, &key, &key, NULL, &query, &report), ATTN_OK);
    assert_int_equal(report.num_blocks, 0);
    assert_int_equal(report.workspace_bytes, 0);
}

/* What a context with the wanted engine runs for inputs of a type. */
static attn_status engine_of(int32_t wanted, int32_t dtype, int32_t *engine) {
    double data[FEATURES] = {0};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, dtype, 2, (int64_t[]){1, FEATURES}), ATTN_OK);
    const attn_context_config settings = {.struct_size = sizeof settings, .engine = wanted};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    attn_sdpa_report report = {.struct_size = sizeof report};
    const attn_status status =
        attn_sdpa_explain(context, &view, &view, &view, NULL, &view, &report);
    attn_context_destroy(context);
    *engine = report.engine;
    return status;
}

static void engine_follows_the_context_and_the_type(void **state) {
    (void)state;
    static const struct {
        int32_t wanted;
        int32_t dtype;
        int32_t engine;
    } rules[] = {
        {ATTN_ENGINE_AUTO, ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED},
        {ATTN_ENGINE_AUTO, ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS},
        {ATTN_ENGINE_BLAS, ATTN_DTYPE_FLOAT32, ATTN_ENGINE_BLAS},
        {ATTN_ENGINE_BLAS, ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS},
        {ATTN_ENGINE_FUSED, ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; ++i) {
        int32_t engine;
        assert_int_equal(engine_of(rules[i].wanted, rules[i].dtype, &engine), ATTN_OK);
        assert_int_equal(engine, rules[i].engine);
    }
}

static void float64_by_the_fused_engine_is_a_clear_error(void **state) {
    (void)state;
    int32_t engine;
    assert_int_equal(engine_of(ATTN_ENGINE_FUSED, ATTN_DTYPE_FLOAT64, &engine),
                     ATTN_ERROR_UNSUPPORTED);
    assert_string_equal(attn_last_error(),
                        "query: expected float32, bfloat16 or float16, which the context's "
                        "ATTN_ENGINE_FUSED computes, got float64; use ATTN_ENGINE_AUTO");
}

/* One row over a cache of ten thousand keys is planned as work for each of its chunks; of a cache
 * in which 16 are used, one piece is done. */
static void parts_of_a_cache_that_no_row_sees_are_not_worked_on(void **state) {
    (void)state;
    enum { CAPACITY = 10000, USED = 16 };
    static float query[FEATURES], cache[CAPACITY * FEATURES], out[FEATURES];
    const int64_t row_shape[] = {1, 1, FEATURES}, cache_shape[] = {1, CAPACITY, FEATURES};
    int32_t used = USED;
    attn_tensor q, kv, o, lengths;
    assert_int_equal(attn_tensor_init(&q, query, ATTN_DTYPE_FLOAT32, 3, row_shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&kv, cache, ATTN_DTYPE_FLOAT32, 3, cache_shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&o, out, ATTN_DTYPE_FLOAT32, 3, row_shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&lengths, &used, ATTN_DTYPE_INT32, 0, NULL), ATTN_OK);
    attn_sdpa_report told = {.struct_size = sizeof told}, ran = {.struct_size = sizeof ran};
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .key_lengths = &lengths, .report = &ran};
    assert_int_equal(attn_sdpa_explain(NULL, &q, &kv, &kv, &params, &o, &told), ATTN_OK);
    assert_int_equal(attn_sdpa(NULL, &q, &kv, &kv, &params, &o, NULL, 0), ATTN_OK);
    assert_true(told.num_blocks > 1);
    assert_int_equal(ran.num_blocks, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_a_cache_that_no_row_sees_are_not_worked_on),
        cmocka_unit_test(explain_every_layout_and_context_agrees_with_the_run),
        cmocka_unit_test(explain_names_kernels_and_products_of_its_context),
        cmocka_unit_test(explain_without_queries_plans_no_blocks_and_no_memory),
        cmocka_unit_test(engine_follows_the_context_and_the_type),
        cmocka_unit_test(float64_by_the_fused_engine_is_a_clear_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
