/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_blas.c: contexts and calls beside a BLAS that is not there or cannot be used. Linked
 * so that what the library believes of its BLAS comes from this file.
 */
#include "blas_library/blas_library.h"
#include "mha_fixture.h"
#include "sdpa_fixture.h"

static bool is_present;
static bool is_callable;
static int max_callers;
static const char *problem;

bool __wrap_attni_blas_present(void);
bool __wrap_attni_blas_present(void) {
    return is_present;
}

bool __wrap_attni_blas_can_be_called(void);
bool __wrap_attni_blas_can_be_called(void) {
    return is_callable;
}

int __wrap_attni_blas_max_callers(void);
int __wrap_attni_blas_max_callers(void) {
    return max_callers;
}

const char *__wrap_attni_blas_problem(void);
const char *__wrap_attni_blas_problem(void) {
    return problem;
}

static void believe(bool present, int callers, const char *whats_wrong) {
    is_present = present;
    is_callable = present;
    max_callers = callers;
    problem = whats_wrong;
}

static attn_context *context_of(int32_t engine, int32_t gemm) {
    const attn_context_config params = {
        .struct_size = sizeof params, .num_threads = 1, .engine = engine, .gemm = gemm};
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    return context;
}

/* gemm is what was asked for; who computes is told beside it. */
static void context_says_who_computes_which_products(void **state) {
    (void)state;
    static const struct {
        bool present;
        int callers;
        int32_t gemm;
        int32_t attention_gemm;
        int32_t projection_gemm;
        int32_t is_serial;
    } cases[] = {
        {false, 1, ATTN_GEMM_AUTO, ATTN_GEMM_NATIVE, ATTN_GEMM_NATIVE, 0},
        {false, 1, ATTN_GEMM_NATIVE, ATTN_GEMM_NATIVE, ATTN_GEMM_NATIVE, 0},
        {true, 1, ATTN_GEMM_AUTO, ATTN_GEMM_BLAS, ATTN_GEMM_NATIVE, 1},
        {true, 64, ATTN_GEMM_AUTO, ATTN_GEMM_BLAS, ATTN_GEMM_NATIVE, 0},
        {true, 64, ATTN_GEMM_BLAS, ATTN_GEMM_BLAS, ATTN_GEMM_BLAS, 0},
        {true, 1, ATTN_GEMM_NATIVE, ATTN_GEMM_NATIVE, ATTN_GEMM_NATIVE, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        believe(cases[i].present, cases[i].callers, NULL);
        attn_context *context = context_of(ATTN_ENGINE_AUTO, cases[i].gemm);
        attn_context_info info = {.struct_size = sizeof info};
        refusal_assert_ok("attn_context_describe", attn_context_describe(context, &info));
        assert_int_equal(info.gemm, cases[i].gemm);
        assert_int_equal(info.attention_gemm, cases[i].attention_gemm);
        assert_int_equal(info.projection_gemm, cases[i].projection_gemm);
        assert_int_equal(info.blas_is_serial, cases[i].is_serial);
        attn_context_destroy(context);
    }
}

static void context_without_a_blas_refuses_to_demand_it(void **state) {
    (void)state;
    believe(false, 1, NULL);
    const attn_context_config params = {.struct_size = sizeof params, .gemm = ATTN_GEMM_BLAS};
    attn_context *context = (attn_context *)(uintptr_t)&params;
    refusal_assert("attn_context_create", attn_context_create(&params, &context),
                   ATTN_ERROR_UNSUPPORTED,
                   "gemm: ATTN_GEMM_BLAS was asked for, but this build has no BLAS");
    assert_null(context);
}

static const char line[] = "gemm: the BLAS found at run time cannot be used: it is made up";

static void attention_by_a_blas_that_cannot_be_used_is_refused(void **state) {
    (void)state;
    believe(true, 1, "it is made up");
    attn_context *context = context_of(ATTN_ENGINE_BLAS, ATTN_GEMM_AUTO);
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, context);
    size_t bytes = 77;
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_BLAS, line);
    refusal_assert("attn_sdpa_workspace_bytes", sdpa_fixture_workspace_bytes(&fixture, &bytes),
                   ATTN_ERROR_BLAS, line);
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    assert_int_equal(bytes, 77);
    attn_context_destroy(context);
}

static void layer_is_refused_where_it_must_use_such_a_blas(void **state) {
    (void)state;
    believe(true, 1, "it is made up");
    static const struct {
        int32_t gemm;
        attn_status status;
    } cases[] = {{ATTN_GEMM_BLAS, ATTN_ERROR_BLAS}, {ATTN_GEMM_AUTO, ATTN_OK}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        attn_context *context = context_of(ATTN_ENGINE_FUSED, cases[i].gemm);
        mha_layer layer;
        mha_fixture fixture;
        mha_layer_create(&layer, context);
        mha_fixture_prepare(&fixture, context, &layer);
        if (cases[i].status == ATTN_OK) {
            refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
            mha_fixture_assert_values(&fixture);
        } else {
            refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), cases[i].status, line);
            refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
        }
        attn_mha_destroy(layer.layer);
        attn_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(context_says_who_computes_which_products),
        cmocka_unit_test(context_without_a_blas_refuses_to_demand_it),
        cmocka_unit_test(attention_by_a_blas_that_cannot_be_used_is_refused),
        cmocka_unit_test(layer_is_refused_where_it_must_use_such_a_blas),
    };
    return cmocka_run_group_tests_name("errors of a BLAS", tests, NULL, NULL);
}
