/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_context_describe.c: what a context says it runs with is what is in force: the number of
 * threads or the width of a caller's pool, the engine and product that were set, and who computes.
 * test_errors_blas.c has who computes in builds with other BLAS libraries.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

/* The most tasks it was given at a time. */
static int32_t run_here(void *state, int64_t count, attn_task_fn task, void *data) {
    int64_t *most = state;
    *most = count > *most ? count : *most;
    for (int64_t index = 0; index < count; ++index) {
        task(data, index);
    }
    return 0;
}

static attn_context *context_of(attn_context_config config, attn_context_info *info) {
    attn_context *context;
    config.struct_size = sizeof config;
    *info = (attn_context_info){.struct_size = sizeof *info};
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    assert_int_equal(attn_context_describe(context, info), ATTN_OK);
    return context;
}

static attn_context_info info_of(attn_context_config config) {
    attn_context_info info;
    attn_context_destroy(context_of(config, &info));
    return info;
}

static void num_threads_is_what_is_in_force(void **state) {
    (void)state;
    int64_t most;
    const int32_t numbers[] = {1, 2, 7, 1024};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
        assert_int_equal(info_of((attn_context_config){.num_threads = numbers[i]}).num_threads,
                         numbers[i]);
        const attn_context_config pool = {.parallel_for_width = numbers[i],
                                          .parallel_for = run_here,
                                          .parallel_for_state = &most};
        assert_int_equal(info_of(pool).num_threads, numbers[i]);
    }
    const int32_t cpus = info_of((attn_context_config){.num_threads = 0}).num_threads;
    assert_in_range(cpus, 1, 1024);
    const attn_context_config pool = {.parallel_for = run_here, .parallel_for_state = &most};
    assert_int_equal(info_of(pool).num_threads, cpus);
}

/* Far more blocks of rows than the pool is wide: it is asked for as many tasks as it says. */
static void fused_work_is_as_wide_as_the_pool(void **state) {
    (void)state;
    enum { ROWS = 2048, COLS = 16 };
    static float values[ROWS * COLS], results[ROWS * COLS];
    const int64_t shape[] = {ROWS, COLS};
    attn_tensor x, y;
    assert_int_equal(attn_tensor_init(&x, values, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&y, results, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    for (int32_t width = 2; width <= 5; ++width) {
        int64_t most = 0;
        attn_context_info info;
        attn_context *context = context_of((attn_context_config){.parallel_for_width = width,
                                                                 .engine = ATTN_ENGINE_FUSED,
                                                                 .parallel_for = run_here,
                                                                 .parallel_for_state = &most},
                                           &info);
        assert_int_equal(attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0), ATTN_OK);
        assert_int_equal(most, width);
        attn_context_destroy(context);
    }
}

static void engine_and_gemm_are_told_as_set(void **state) {
    (void)state;
    const attn_context_info defaults = info_of((attn_context_config){.num_threads = 1});
    const bool has_blas = strcmp(defaults.blas, "none") != 0;
    for (int32_t engine = ATTN_ENGINE_AUTO; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t gemm = ATTN_GEMM_AUTO; gemm <= ATTN_GEMM_NATIVE; ++gemm) {
            if (gemm == ATTN_GEMM_BLAS && !has_blas) {
                print_message("ATTN_GEMM_BLAS is left out: this build has no BLAS\n");
                continue;
            }
            const attn_context_info info =
                info_of((attn_context_config){.num_threads = 1, .engine = engine, .gemm = gemm});
            const int32_t preset = has_blas ? ATTN_GEMM_BLAS : ATTN_GEMM_NATIVE;
            assert_int_equal(info.engine, engine);
            assert_int_equal(info.gemm, gemm);
            assert_int_equal(info.attention_gemm, gemm == ATTN_GEMM_AUTO ? preset : gemm);
            assert_int_equal(info.projection_gemm,
                             gemm == ATTN_GEMM_AUTO ? ATTN_GEMM_NATIVE : gemm);
        }
    }
}

/* What is told of a context is what its calls report. A layer depends on the threads of a BLAS that
 * computes its projections, its attention or both. */
static void calls_report_what_the_context_says(void **state) {
    (void)state;
    float values[8] = {0}, results[4] = {0};
    const int64_t shape[] = {2, 2};
    attn_tensor x, y;
    const attn_mha_config config = {.struct_size = sizeof config, .embed_dim = 2, .num_heads = 1};
    attn_mha *layer;
    assert_int_equal(attn_mha_create(NULL, &config, &layer), ATTN_OK);
    assert_int_equal(attn_tensor_init(&x, values, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&y, results, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    const attn_context_info defaults = info_of((attn_context_config){.num_threads = 1});
    for (int i = 0; i < 6; ++i) {
        const int32_t engine = i % 2 == 0 ? ATTN_ENGINE_BLAS : ATTN_ENGINE_FUSED;
        const int32_t gemm = i / 2;
        if (gemm == ATTN_GEMM_BLAS && strcmp(defaults.blas, "none") == 0) {
            print_message("ATTN_GEMM_BLAS is left out: this build has no BLAS\n");
            continue;
        }
        attn_context_info info;
        attn_context *context = context_of(
            (attn_context_config){.num_threads = 1, .engine = engine, .gemm = gemm}, &info);
        attn_sdpa_report inside = {.struct_size = sizeof inside};
        attn_mha_report report = {.struct_size = sizeof report, .attention = &inside};
        assert_int_equal(attn_mha_explain(context, layer, &x, &x, &x, NULL, &y, &report), ATTN_OK);
        assert_int_equal(report.projection_gemm, info.projection_gemm);
        const bool is_fused = engine == ATTN_ENGINE_FUSED;
        assert_int_equal(inside.engine, engine);
        assert_int_equal(inside.gemm, is_fused ? ATTN_GEMM_NATIVE : info.attention_gemm);
        assert_int_equal(inside.depends_on_blas_threads, inside.gemm == ATTN_GEMM_BLAS);
        assert_int_equal(report.depends_on_blas_threads,
                         inside.gemm == ATTN_GEMM_BLAS || info.projection_gemm == ATTN_GEMM_BLAS);
        assert_string_equal(report.kernels, info.kernels);
        size_t bytes;
        assert_int_equal(attn_mha_workspace_bytes(context, layer, &x, &x, &x, NULL, &y, &bytes),
                         ATTN_OK);
        assert_int_equal(report.workspace_bytes, bytes);
        attn_context_destroy(context);
    }
    attn_mha_destroy(layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(num_threads_is_what_is_in_force),
        cmocka_unit_test(fused_work_is_as_wide_as_the_pool),
        cmocka_unit_test(engine_and_gemm_are_told_as_set),
        cmocka_unit_test(calls_report_what_the_context_says),
    };
    return cmocka_run_group_tests_name("context_describe", tests, NULL, NULL);
}
