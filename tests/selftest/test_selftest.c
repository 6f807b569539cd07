/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_selftest.c: attn_selftest where all is well, and where memory or threads are refused.
 */
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "errors/counting_allocator.h"
#include "support/end_of_child.h"
#include "support/fork_threads.h"

enum { MOST_CHECKS = 32 };

/* What a visit was told. */
typedef struct visited_checks {
    int count;
    const char *names[MOST_CHECKS];
    int num_failed;
    attn_status first_failure;
    char first_detail[512];
} visited_checks;

static void visit(void *state, const char *check, attn_status status, const char *detail) {
    visited_checks *visited = state;
    assert_true(visited->count < MOST_CHECKS);
    for (int i = 0; i < visited->count; ++i) {
        assert_string_not_equal(check, visited->names[i]);
    }
    visited->names[visited->count++] = check;
    assert_int_equal(status == ATTN_OK, detail[0] == '\0');
    if (status != ATTN_OK && visited->num_failed++ == 0) {
        visited->first_failure = status;
        (void)snprintf(visited->first_detail, sizeof visited->first_detail, "%s", detail);
    }
    /* A visit may call the library, whose detail is then another one. */
    assert_int_equal(attn_dtype_size_bytes(ATTN_DTYPE_BOOL), 1);
    assert_int_equal(attn_tensor_init(NULL, NULL, ATTN_DTYPE_BOOL, 0, NULL), ATTN_ERROR_NULL);
}

static attn_status run_told(attn_context *context, visited_checks *visited) {
    const attn_selftest_params params = {
        .struct_size = sizeof params, .visit = visit, .visit_state = visited};
    return attn_selftest(context, &params);
}

static int has_check(const visited_checks *visited, const char *name) {
    for (int i = 0; i < visited->count; ++i) {
        if (strcmp(visited->names[i], name) == 0) {
            return 1;
        }
    }
    return 0;
}

static void assert_passes(attn_context *context, visited_checks *visited) {
    *visited = (visited_checks){0};
    const attn_status status = run_told(context, visited);
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
    assert_int_equal(visited->num_failed, 0);
    assert_string_equal(attn_last_error(), "");
}

static void assert_settings_pass(int32_t engine, int32_t gemm, const char *kernels, int has_blas) {
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = 1 + (engine + gemm) % 3,
                                        .engine = engine,
                                        .gemm = gemm,
                                        .kernels = kernels};
    attn_context *context;
    visited_checks visited;
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    assert_passes(context, &visited);
    /* A BLAS that the context does not call is not checked. */
    assert_int_equal(has_check(&visited, "BLAS products, float64"),
                     has_blas && (gemm == ATTN_GEMM_BLAS ||
                                  (gemm == ATTN_GEMM_AUTO && engine != ATTN_ENGINE_FUSED)));
    if (gemm == ATTN_GEMM_NATIVE || (gemm == ATTN_GEMM_AUTO && engine != ATTN_ENGINE_BLAS)) {
        assert_false(has_check(&visited, "BLAS products, float32"));
    }
    assert_int_equal(has_check(&visited, "attention, float64"), engine != ATTN_ENGINE_FUSED);
    assert_true(has_check(&visited, "products, float32"));
    assert_true(has_check(&visited, "attention, float32"));
    assert_true(has_check(&visited, "weights, float32"));
    assert_true(has_check(&visited, "layer, float32"));
    assert_true(has_check(&visited, "concurrent callers"));
    attn_context_destroy(context);
}

static void passes_with_every_kernel_engine_and_product(void **state) {
    (void)state;
    attn_context_info defaults = {.struct_size = sizeof defaults};
    assert_int_equal(attn_context_describe(NULL, &defaults), ATTN_OK);
    const int has_blas = strcmp(defaults.blas, "none") != 0;
    for (int32_t kernel = 0; attn_kernels_name(kernel) != NULL; ++kernel) {
        /* Engines differ in what they call of the kernels, not in the kernels. */
        const int32_t last = kernel == 0 ? ATTN_ENGINE_FUSED : ATTN_ENGINE_AUTO;
        for (int32_t engine = ATTN_ENGINE_AUTO; engine <= last; ++engine) {
            const int32_t gemm = (kernel + engine) % (ATTN_GEMM_NATIVE + 1);
            assert_settings_pass(engine,
                                 gemm == ATTN_GEMM_BLAS && !has_blas ? ATTN_GEMM_AUTO : gemm,
                                 attn_kernels_name(kernel), has_blas);
        }
    }
}

static void default_context_and_no_visit_will_do(void **state) {
    (void)state;
    assert_int_equal(attn_selftest(NULL, NULL), ATTN_OK);
    assert_string_equal(attn_last_error(), "");
}

/* The first, second, fourth, ... request of a run fails, alone: what asked for it fails, the rest
 * passes. */
static void memory_that_runs_out_fails_the_check_that_needed_it(void **state) {
    (void)state;
    counting_allocator allocator;
    attn_context_config params = {
        .struct_size = sizeof params, .num_threads = 2, .gemm = ATTN_GEMM_NATIVE};
    counting_allocator_init(&allocator);
    counting_allocator_use(&allocator, &params);
    attn_context *context;
    visited_checks visited;
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    assert_passes(context, &visited);
    const int live = allocator.live_blocks;
    int64_t tried = 0;
    for (int64_t n = 1;; n *= 2) {
        visited = (visited_checks){0};
        counting_allocator_fail(&allocator, n, false);
        const attn_status status = run_told(context, &visited);
        if (status == ATTN_OK) {
            break;
        }
        assert_int_equal(status, ATTN_ERROR_MEMORY);
        assert_int_equal(visited.num_failed, 1);
        assert_int_equal(visited.first_failure, status);
        assert_string_equal(visited.first_detail, attn_last_error());
        assert_int_equal(allocator.live_blocks, live);
        ++tried;
    }
    assert_true(tried >= 6);
    counting_allocator_fail(&allocator, 1, true);
    visited = (visited_checks){0};
    assert_int_equal(run_told(context, &visited), ATTN_ERROR_MEMORY);
    assert_int_equal(visited.num_failed, visited.count);
    counting_allocator_fail(&allocator, 0, false);
    assert_passes(context, &visited);
    assert_int_equal(allocator.live_blocks, live);
    assert_int_equal(allocator.mistakes, 0);
    attn_context_destroy(context);
    assert_int_equal(allocator.live_blocks, 0);
}

/* ---- threads ---- */

static void *run_selftest(void *data) {
    attn_context *context = data;
    return attn_selftest(context, NULL) == ATTN_OK ? NULL : data;
}

static void threads_may_run_it_on_one_context(void **state) {
    (void)state;
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 2};
    attn_context *context;
    pthread_t threads[2];
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    for (int i = 0; i < 2; ++i) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_selftest, context), 0);
    }
    for (int i = 0; i < 2; ++i) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    attn_context_destroy(context);
}

/* With a context of its parent, whose threads it does not have, and the default one. */
static void forked_child_may_run_it(void **state) {
    (void)state;
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = threads_beside_fork()};
    attn_context *context;
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    assert_int_equal(attn_selftest(context, NULL), ATTN_OK);
    const pid_t child = fork();
    if (child == 0) {
        alarm(600);
        end_of_child(attn_selftest(context, NULL) == ATTN_OK && attn_selftest(NULL, NULL) == ATTN_OK
                         ? 0
                         : 1);
    }
    int outcome = -1;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFEXITED(outcome));
    assert_int_equal(WEXITSTATUS(outcome), 0);
    attn_context_destroy(context);
}

static void passes_in_every_rounding_mode(void **state) {
    (void)state;
    static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    visited_checks visited;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; ++i) {
        assert_int_equal(fesetround(modes[i]), 0);
        visited = (visited_checks){0};
        const attn_status status = run_told(NULL, &visited);
        assert_int_equal(fegetround(), modes[i]);
        assert_int_equal(fesetround(FE_TONEAREST), 0);
        if (status != ATTN_OK) {
            fail_msg("mode %d: %s: %s", modes[i], attn_status_name(status), visited.first_detail);
        }
    }
}

static int32_t run_backwards(void *state, int64_t count, attn_task_fn task, void *data) {
    (void)state;
    for (int64_t index = count - 1; index >= 0; --index) {
        task(data, index);
    }
    return 0;
}

static void callers_parallel_for_computes_it(void **state) {
    (void)state;
    const attn_context_config params = {
        .struct_size = sizeof params, .parallel_for_width = 3, .parallel_for = run_backwards};
    attn_context *context;
    visited_checks visited;
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    assert_passes(context, &visited);
    attn_context_destroy(context);
}

static int32_t refuse(void *state, int64_t count, attn_task_fn task, void *data) {
    (void)state;
    (void)count;
    (void)task;
    (void)data;
    return 1;
}

static void refused_parallel_for_is_told_and_the_first_failure_is_returned(void **state) {
    (void)state;
    const attn_context_config params = {
        .struct_size = sizeof params, .parallel_for_width = 2, .parallel_for = refuse};
    attn_context *context;
    visited_checks visited = {0};
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    const attn_status status = run_told(context, &visited);
    assert_int_equal(status, ATTN_ERROR_THREAD);
    assert_int_equal(visited.first_failure, ATTN_ERROR_THREAD);
    assert_string_equal(visited.first_detail, attn_last_error());
    attn_context_destroy(context);
}

/* Room for a struct of a later release. */
typedef union newer_params {
    attn_selftest_params known;
    unsigned char bytes[sizeof(attn_selftest_params) + 24];
} newer_params;

/* The struct's size in release 0.1, a number that never changes. */
enum { FIRST_BYTES = 24 };

static void params_follow_the_rule_of_structs_before_any_check(void **state) {
    (void)state;
    visited_checks visited = {0};
    newer_params given;
    memset(&given, 0, sizeof given);
    given.known.visit = visit;
    given.known.visit_state = &visited;
    for (uint64_t size = 0; size < FIRST_BYTES; ++size) {
        char line[128];
        given.known.struct_size = size;
        snprintf(line, sizeof line,
                 "params: expected struct_size 24 (sizeof the struct) or more, got %d", (int)size);
        assert_int_equal(attn_selftest(NULL, &given.known), ATTN_ERROR_VALUE);
        assert_string_equal(attn_last_error(), line);
    }
    given.known.struct_size = 4097;
    assert_int_equal(attn_selftest(NULL, &given.known), ATTN_ERROR_VALUE);
    given.known.struct_size = sizeof given;
    for (size_t at = sizeof given.known; at < sizeof given; ++at) {
        given.bytes[at] = 1;
        assert_int_equal(attn_selftest(NULL, &given.known), ATTN_ERROR_UNSUPPORTED);
        given.bytes[at] = 0;
    }
    assert_int_equal(visited.count, 0);
    assert_int_equal(attn_selftest(NULL, &given.known), ATTN_OK);
    assert_true(visited.count > 0);
    assert_int_equal(visited.num_failed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* First: while the default context has no threads. */
        cmocka_unit_test(forked_child_may_run_it),
        cmocka_unit_test(passes_with_every_kernel_engine_and_product),
        cmocka_unit_test(default_context_and_no_visit_will_do),
        cmocka_unit_test(memory_that_runs_out_fails_the_check_that_needed_it),
        cmocka_unit_test(threads_may_run_it_on_one_context),
        cmocka_unit_test(passes_in_every_rounding_mode),
        cmocka_unit_test(callers_parallel_for_computes_it),
        cmocka_unit_test(params_follow_the_rule_of_structs_before_any_check),
        cmocka_unit_test(refused_parallel_for_is_told_and_the_first_failure_is_returned),
    };
    return cmocka_run_group_tests_name("self-test", tests, NULL, NULL);
}
