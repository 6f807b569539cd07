/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_key_sources.c: a sequence has the bits that it has alone wherever its keys lie, in pages or
 * between those of others, and wherever its query rows do. Every pair of settings by default; with
 * --full also pairs chosen otherwise. That the numbers are right is said by the tests of calls
 * alone.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "key_source_case.h"
#include "property_setup.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

static int is_full = 0;

static void fail_case(const source_case *built, const factor_set *set, const char *what,
                      int64_t sequence, int64_t row, double expected, double got) {
    char options[500];
    describe_case(set, built->chosen, options, sizeof options);
    fail_msg("%s of sequence %lld, row %lld: expected %.17g, got %.17g: %s", what,
             (long long)sequence, (long long)row, expected, got, options);
}

/* What columns behind a sequence's keys hold of weights or scores. */
static double behind_keys(const source_case *built, const char *what) {
    const int is_masked = built->all.params.scores_stage == ATTN_SCORE_MASKED;
    return strcmp(what, "scores") == 0 && is_masked ? -(double)INFINITY : 0;
}

static void assert_rows(const source_case *built, const factor_set *set, const char *what,
                        int64_t sequence, const attn_tensor *all, const attn_tensor *alone,
                        int32_t row_axis) {
    const int is_ragged = source_is_ragged(built);
    int64_t shape[4], index[4] = {0};
    if (all == NULL) {
        return;
    }
    memcpy(shape, alone->shape, sizeof shape);
    const int32_t rank = alone->rank;
    const int is_wider = strcmp(what, "weights") == 0 || strcmp(what, "scores") == 0;
    shape[rank - 1] = is_wider ? built->columns : shape[rank - 1];
    if (oracle_count(rank, shape) == 0) {
        return;
    }
    do {
        int64_t source[4];
        memcpy(source, index, sizeof source);
        source[0] = sequence;
        source[row_axis] += is_ragged ? built->first_row[sequence] : 0;
        const double got = oracle_element(all, source + is_ragged);
        const int is_behind = index[rank - 1] >= alone->shape[rank - 1];
        const double expected = is_behind ? behind_keys(built, what) : oracle_element(alone, index);
        const int is_nan = expected != expected && got != got;
        if (!is_nan && memcmp(&expected, &got, sizeof got) != 0) {
            fail_case(built, set, what, sequence, index[row_axis], expected, got);
        }
    } while (oracle_next_index(rank, shape, index));
}

/* Rows of no sequence keep what they held. */
static void assert_untouched(const source_case *built, const factor_set *set,
                             const attn_tensor *output, int32_t row_axis) {
    int64_t index[4] = {0};
    if (output == NULL || !source_is_ragged(built)) {
        return;
    }
    const int64_t last = built->batch - 1;
    do {
        const int64_t row = index[row_axis];
        const int is_outside =
            row < built->first_row[0] || row >= built->first_row[last] + built->rows[last];
        if (is_outside && oracle_element(output, index) != oracle_rounded(output->dtype, 7777)) {
            fail_case(built, set, "what nobody writes", -1, row, 7777,
                      oracle_element(output, index));
        }
    } while (oracle_next_index(output->rank, output->shape, index));
}

static void run_all(attn_context *context, source_case *built) {
    source_call *all = &built->all;
    void *workspace = NULL;
    size_t bytes = 0;
    if (built->chosen->level[SOURCE_WORKSPACE] == SOURCE_EXACT_MEMORY) {
        assert_ok(attn_sdpa_workspace_bytes(context, all->query, NULL, NULL, &all->params,
                                            all->output, &bytes));
        workspace = malloc(bytes + 1);
        assert_non_null(workspace);
    }
    pool_begin(&all->pool);
    assert_ok(
        attn_sdpa(context, all->query, NULL, NULL, &all->params, all->output, workspace, bytes));
    char message[200];
    if (pool_check(&all->pool, message, sizeof message) != 0) {
        fail_msg("%s", message);
    }
    free(workspace);
}

static void run_case(attn_context **contexts, const factor_set *set, const factor_case *chosen,
                     uint64_t seed) {
    static source_case built;
    static source_call alone;
    source_case_build(&built, chosen, seed);
    run_all(contexts[chosen->level[SOURCE_THREADS]], &built);
    const source_call *all = &built.all;
    const int32_t weights_axis =
        all->weights != NULL && all->weights->rank + source_is_ragged(&built) == 3 ? 1 : 2;
    for (int64_t b = 0; b < built.batch; ++b) {
        source_sequence_build(&built, b, &alone);
        assert_ok(attn_sdpa(contexts[0], alone.query, alone.key, alone.value, &alone.params,
                            alone.output, NULL, 0));
        assert_rows(&built, set, "output", b, all->output, alone.output, 2);
        assert_rows(&built, set, "lse", b, all->lse, alone.lse, 2);
        assert_rows(&built, set, "scores", b, all->scores, alone.scores, 2);
        assert_rows(&built, set, "weights", b, all->weights, alone.weights, weights_axis);
        pool_destroy(&alone.pool);
    }
    assert_untouched(&built, set, all->output, 1);
    assert_untouched(&built, set, all->lse, 1);
    assert_untouched(&built, set, all->scores, 1);
    assert_untouched(&built, set, all->weights, weights_axis - 1);
    source_case_destroy(&built);
}

static void create_contexts(attn_context **contexts, int32_t engine, const char *kernels) {
    for (int c = 0; c < NUM_SOURCE_THREADS; ++c) {
        const attn_context_config config = {.struct_size = sizeof config,
                                            .num_threads = source_threads_of[c],
                                            .engine = engine,
                                            .gemm = ATTN_GEMM_NATIVE,
                                            .kernels = kernels};
        assert_ok(attn_context_create(&config, &contexts[c]));
    }
}

static void run_cases(const char *kernels, uint64_t seed) {
    const factor_set set = source_factor_set();
    attn_context *fused[NUM_SOURCE_THREADS], *native[NUM_SOURCE_THREADS];
    create_contexts(fused, ATTN_ENGINE_FUSED, kernels);
    create_contexts(native, ATTN_ENGINE_BLAS, kernels);
    covering_array array = covering_array_create(&set, seed);
    assert_int_equal(array.count.num_missing, 0);
    for (int64_t i = 0; i < array.num_cases; ++i) {
        const int is_fused = array.cases[i].level[SOURCE_ENGINE] <= SOURCE_FUSED_MIXED;
        run_case(is_fused ? fused : native, &set, &array.cases[i], seed + (uint64_t)i);
    }
    print_message("%s: %lld cases, %d settings, strength %d\n", kernels, (long long)array.num_cases,
                  set.count, test_strength());
    covering_array_destroy(&array);
    for (int c = 0; c < NUM_SOURCE_THREADS; ++c) {
        attn_context_destroy(fused[c]);
        attn_context_destroy(native[c]);
    }
}

static void keys_may_lie_anywhere(void **state) {
    (void)state;
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        for (uint64_t seed = 1; seed <= (is_full ? 12 : 1); ++seed) {
            run_cases(attn_kernels_name(i), 1000 * seed + (uint64_t)i);
        }
    }
}

int main(int argc, char **argv) {
    is_full = argc > 1 && strcmp(argv[1], "--full") == 0;
    if (argc > 1 && !is_full) {
        print_error("usage: test_key_sources [--full]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_may_lie_anywhere)};
    return cmocka_run_group_tests_name("key_sources", tests, NULL, NULL);
}
