/* SPDX-License-Identifier: BSD-3-Clause
 *
 * selftest.c: the public call: which checks there are, and running them, one after the other and
 * then all at the same time.
 */
#include <attention/selftest.h>

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "blas_library/blas_library.h"
#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "context/thread_pool.h"
#include "selftest/known_results.h"

/* `run`, or, where that is NULL, products by `backend`. */
typedef struct known_check {
    const char *name;
    int32_t dtype;
    int32_t backend;
    attn_status (*run)(attn_context *context, int32_t dtype, attni_selftest_forms forms);
} known_check;

static const known_check checks[] = {
    {"BLAS products, float32", ATTN_DTYPE_FLOAT32, ATTN_GEMM_BLAS, NULL},
    {"BLAS products, float64", ATTN_DTYPE_FLOAT64, ATTN_GEMM_BLAS, NULL},
    {"products, float32", ATTN_DTYPE_FLOAT32, ATTN_GEMM_NATIVE, NULL},
    {"products, float64", ATTN_DTYPE_FLOAT64, ATTN_GEMM_NATIVE, NULL},
    {"attention, float32", ATTN_DTYPE_FLOAT32, 0, attni_selftest_attention},
    {"attention, float64", ATTN_DTYPE_FLOAT64, 0, attni_selftest_attention},
    {"attention, bfloat16", ATTN_DTYPE_BFLOAT16, 0, attni_selftest_attention},
    {"attention, float16", ATTN_DTYPE_FLOAT16, 0, attni_selftest_attention},
    {"quantised caches", ATTN_DTYPE_FLOAT32, 0, attni_selftest_caches},
    {"weights, float32", ATTN_DTYPE_FLOAT32, 0, attni_selftest_weights},
    {"weights, float64", ATTN_DTYPE_FLOAT64, 0, attni_selftest_weights},
    {"layer, float32", ATTN_DTYPE_FLOAT32, 0, attni_selftest_layer},
    {"layer, float64", ATTN_DTYPE_FLOAT64, 0, attni_selftest_layer},
    {"layer, bfloat16", ATTN_DTYPE_BFLOAT16, 0, attni_selftest_layer},
    {"layer, float16", ATTN_DTYPE_FLOAT16, 0, attni_selftest_layer},
    {"gradients, float32", ATTN_DTYPE_FLOAT32, 0, attni_selftest_gradients},
    {"gradients, float64", ATTN_DTYPE_FLOAT64, 0, attni_selftest_gradients},
};

enum { CHECKS = sizeof checks / sizeof checks[0], CONCURRENT_CALLERS = 4 };

static const char concurrent_name[] = "concurrent callers";

/* Whether the context leaves products of that type to BLAS, of attention or, on demand, all. */
static bool calls_blas(const attn_context *context, int32_t dtype) {
    const bool is_float32 = dtype == ATTN_DTYPE_FLOAT32;
    const int32_t engine = attni_context_engine(context);
    const bool has_engine = is_float32 ? engine == ATTN_ENGINE_BLAS : engine != ATTN_ENGINE_FUSED;
    return ((has_engine && attni_context_attention_gemm(context) == ATTN_GEMM_BLAS) ||
            attni_context_projection_gemm(context) == ATTN_GEMM_BLAS) &&
           !(is_float32 && attni_blas_may_stray_in_float32());
}

/* Whether the context ever computes that way: a BLAS that it does not call is not called here. */
static bool applies(const attn_context *context, const known_check *check) {
    if (check->run == NULL) {
        return check->backend != ATTN_GEMM_BLAS || calls_blas(context, check->dtype);
    }
    return check->dtype != ATTN_DTYPE_FLOAT64 || attni_context_engine(context) != ATTN_ENGINE_FUSED;
}

static attn_status run_check(attn_context *context, const known_check *check,
                             attni_selftest_forms forms) {
    return check->run != NULL
               ? check->run(context, check->dtype, forms)
               : attni_selftest_products(context, check->dtype, check->backend, forms);
}

/* ---- all at once ---- */

/* What became of one caller's checks. */
typedef struct caller_outcome {
    attn_status status;
    char detail[ATTNI_ERROR_BYTES];
} caller_outcome;

typedef struct concurrent_callers {
    attn_context *context;
    caller_outcome outcomes[CONCURRENT_CALLERS];
    atomic_int num_arrived;
} concurrent_callers;

/* Waits for the other callers: on a busy machine the first could have ended before the last begins.
 * Not for ever: a thread that the system keeps away makes the check weaker, not endless. */
static void meet(concurrent_callers *callers) {
    enum { MOST_YIELDS = 1 << 18 };
    atomic_fetch_add(&callers->num_arrived, 1);
    for (int i = 0; i < MOST_YIELDS && atomic_load(&callers->num_arrived) < CONCURRENT_CALLERS;
         ++i) {
        sched_yield();
    }
}

/* Each caller begins with another check, so that all meet all, and has its share of a check's forms:
 * a BLAS with threads takes long for many callers at once. A thread has an error detail of
 * its own, which ends with it. */
static void run_caller(void *data, int64_t caller) {
    concurrent_callers *callers = data;
    caller_outcome *outcome = &callers->outcomes[caller];
    const attni_selftest_forms forms = {(int32_t)caller, CONCURRENT_CALLERS};
    meet(callers);
    for (int i = 0; i < CHECKS && outcome->status == ATTN_OK; ++i) {
        const known_check *check = &checks[(i + caller * CHECKS / CONCURRENT_CALLERS) % CHECKS];
        if (applies(callers->context, check)) {
            outcome->status = run_check(callers->context, check, forms);
        }
    }
    (void)attn_last_error_copy(outcome->detail, sizeof outcome->detail);
}

static attn_status run_concurrently(attn_context *context) {
    attni_thread_pool *pool;
    concurrent_callers callers = {.context = context};
    const attn_status created =
        attni_thread_pool_create(attni_context_allocator(context), CONCURRENT_CALLERS, &pool);
    if (created != ATTN_OK) {
        return attni_fail(created, "selftest: %d concurrent callers: %s", CONCURRENT_CALLERS,
                          attn_status_text(created));
    }
    attni_thread_pool_run(pool, CONCURRENT_CALLERS, run_caller, &callers);
    attni_thread_pool_destroy(pool);
    for (int i = 0; i < CONCURRENT_CALLERS; ++i) {
        if (callers.outcomes[i].status != ATTN_OK) {
            return attni_fail(callers.outcomes[i].status, "%s", callers.outcomes[i].detail);
        }
    }
    return ATTN_OK;
}

/* ---- one after the other ---- */

typedef struct selftest_run {
    attn_selftest_params params;
    caller_outcome first_failure; /* the first wrong result, if there is one */
} selftest_run;

static void note(selftest_run *run, const char *name, attn_status status) {
    char detail[ATTNI_ERROR_BYTES] = "";
    if (status != ATTN_OK) {
        (void)attn_last_error_copy(detail, sizeof detail);
    }
    const bool is_first_wrong =
        status == ATTN_ERROR_SELFTEST && run->first_failure.status != ATTN_ERROR_SELFTEST;
    if (run->first_failure.status == ATTN_OK || is_first_wrong) {
        run->first_failure.status = status;
        memcpy(run->first_failure.detail, detail, sizeof detail);
    }
    if (run->params.visit != NULL) {
        run->params.visit(run->params.visit_state, name, status, detail);
    }
}

attn_status attn_selftest(attn_context *context, const attn_selftest_params *params) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    selftest_run run = {0};
    ATTNI_TRY(attni_struct_read("params", params,
                                ATTNI_BYTES_THROUGH(attn_selftest_params, visit_state),
                                sizeof run.params, &run.params));
    ATTNI_TRY(attni_context_resolve(context, &context));
    for (int i = 0; i < CHECKS; ++i) {
        if (applies(context, &checks[i])) {
            const attni_selftest_forms all = {0, 1};
            note(&run, checks[i].name, run_check(context, &checks[i], all));
        }
    }
    note(&run, concurrent_name, run_concurrently(context));
    attni_error_clear();
    return run.first_failure.status == ATTN_OK
               ? ATTN_OK
               : attni_fail(run.first_failure.status, "%s", run.first_failure.detail);
}
