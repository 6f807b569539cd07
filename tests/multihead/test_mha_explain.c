/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_explain.c: what attn_mha_explain says of a layer: who computes its projections, what that
 * makes its bits depend on, and what its attention does, as the run itself then reports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/same_report.h"

enum { N = 2, L = 5, S = 9, E = 12, H = 3, MOST = N * S * E };

/* A call of a layer with random parameters, self-contained. */
typedef struct layer_call {
    attn_mha *layer;
    double query[MOST], key[MOST], output[MOST];
    attn_tensor query_view, key_view, output_view;
    attn_sdpa_params attention;
    attn_mha_params params;
} layer_call;

static attn_tensor view_of(void *data, int32_t dtype, int64_t length) {
    const int64_t shape[] = {N, length, E};
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, dtype, 3, shape), ATTN_OK);
    return view;
}

static void make_call(layer_call *call, int32_t dtype) {
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = E,
                                    .num_heads = H,
                                    .dtype = dtype,
                                    .add_zero_attn = 1,
                                    .batch_first = 1};
    memset(call, 0, sizeof *call);
    assert_int_equal(attn_mha_create(NULL, &config, &call->layer), ATTN_OK);
    assert_int_equal(attn_mha_init_parameters(NULL, call->layer, NULL), ATTN_OK);
    call->query_view = view_of(call->query, dtype, L);
    call->key_view = view_of(call->key, dtype, S);
    call->output_view = view_of(call->output, dtype, L);
    call->attention = (attn_sdpa_params){.struct_size = sizeof call->attention, .is_causal = 1};
    call->params =
        (attn_mha_params){.struct_size = sizeof call->params, .attention = &call->attention};
}

static attn_status explain(attn_context *context, const layer_call *call, attn_mha_report *report) {
    return attn_mha_explain(context, call->layer, &call->query_view, &call->key_view,
                            &call->key_view, &call->params, &call->output_view, report);
}

static void run(attn_context *context, const layer_call *call) {
    assert_int_equal(attn_mha_forward(context, call->layer, &call->query_view, &call->key_view,
                                      &call->key_view, &call->params, &call->output_view, NULL, 0),
                     ATTN_OK);
}

/* Explains, runs, and compares what the attention was told to be with what it was. The layer's
 * workspace has its projections beside the attention's. */
static attn_mha_report explain_and_run(attn_context *context, int32_t dtype) {
    layer_call call;
    attn_sdpa_report told = {.struct_size = sizeof told}, ran = {.struct_size = sizeof ran};
    attn_mha_report report = {.struct_size = sizeof report, .attention = &told};
    size_t bytes = 0;
    make_call(&call, dtype);
    assert_int_equal(explain(context, &call, &report), ATTN_OK);
    assert_int_equal(attn_mha_workspace_bytes(context, call.layer, &call.query_view, &call.key_view,
                                              &call.key_view, &call.params, &call.output_view,
                                              &bytes),
                     ATTN_OK);
    assert_int_equal(report.workspace_bytes, bytes);
    assert_true(told.workspace_bytes < bytes);
    assert_ptr_equal(report.attention, &told);
    assert_string_equal(report.kernels, told.kernels);
    call.attention.report = &ran;
    run(context, &call);
    assert_same_report(&told, &ran);
    attn_mha_destroy(call.layer);
    return report;
}

/* NULL, with a line that says so, where the build has no BLAS. */
static attn_context *context_with(int32_t engine, int32_t gemm) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 2, .engine = engine, .gemm = gemm};
    attn_context *context = NULL;
    const attn_status status = attn_context_create(&config, &context);
    if (status == ATTN_ERROR_UNSUPPORTED && gemm == ATTN_GEMM_BLAS) {
        print_message("left out, as this build has no BLAS: %s\n", attn_last_error());
        return NULL;
    }
    assert_int_equal(status, ATTN_OK);
    return context;
}

static void projections_are_native_unless_blas_is_asked_for(void **state) {
    (void)state;
    static const int32_t gemms[] = {ATTN_GEMM_AUTO, ATTN_GEMM_NATIVE};
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
    for (int i = 0; i < 4; ++i) {
        attn_context *context = context_with(ATTN_ENGINE_AUTO, gemms[i % 2]);
        attn_context_info info = {.struct_size = sizeof info};
        assert_int_equal(attn_context_describe(context, &info), ATTN_OK);
        const attn_mha_report report = explain_and_run(context, dtypes[i / 2]);
        /* Only float64's attention goes to the engine that may call BLAS. */
        const int by_blas =
            dtypes[i / 2] == ATTN_DTYPE_FLOAT64 && info.attention_gemm == ATTN_GEMM_BLAS;
        assert_int_equal(report.projection_gemm, ATTN_GEMM_NATIVE);
        assert_int_equal(report.depends_on_blas_threads, by_blas);
        assert_int_equal(info.projection_gemm, ATTN_GEMM_NATIVE);
        attn_context_destroy(context);
    }
}

static void blas_projects_where_it_is_asked_for(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_AUTO; engine <= ATTN_ENGINE_FUSED; ++engine) {
        attn_context *context = context_with(engine, ATTN_GEMM_BLAS);
        if (context == NULL) {
            return;
        }
        const attn_mha_report report = explain_and_run(context, ATTN_DTYPE_FLOAT32);
        attn_context_info info = {.struct_size = sizeof info};
        assert_int_equal(attn_context_describe(context, &info), ATTN_OK);
        assert_int_equal(report.projection_gemm, info.projection_gemm);
        assert_int_equal(report.projection_gemm, ATTN_GEMM_BLAS);
        assert_int_equal(report.depends_on_blas_threads, 1);
        attn_context_destroy(context);
    }
}

/* Data may be absent, parameters not set, and the inner report is not asked for. */
static void explaining_reads_nothing(void **state) {
    (void)state;
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = E, .num_heads = H, .batch_first = 1};
    const attn_tensor query = view_of(NULL, ATTN_DTYPE_FLOAT32, L);
    const attn_tensor key = view_of(NULL, ATTN_DTYPE_FLOAT32, S);
    attn_mha_report report = {.struct_size = sizeof report};
    attn_mha *layer;
    assert_int_equal(attn_mha_create(NULL, &config, &layer), ATTN_OK);
    assert_int_equal(attn_mha_explain(NULL, layer, &query, &key, &key, NULL, &query, &report),
                     ATTN_OK);
    assert_true(report.workspace_bytes > 0);
    assert_null(report.attention);
    attn_mha_destroy(layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projections_are_native_unless_blas_is_asked_for),
        cmocka_unit_test(blas_projects_where_it_is_asked_for),
        cmocka_unit_test(explaining_reads_nothing),
    };
    return cmocka_run_group_tests_name("mha_explain", tests, NULL, NULL);
}
