/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_run.c: contexts and workspaces of test calls, and the loop over a covering array.
 */
#include "call_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call_factors.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

enum {
    WORKSPACE_MARGIN = 64,
    WORKSPACE_FILL = 0xc3,
    MOST_MORE = 1000,
    MOST_CONTEXTS = 48,
    FEW_ELEMENTS = 10000
};

/* A caller's pool that has no threads and takes the items from the last to the first. */
static int32_t run_backwards(void *state, int64_t count, void (*task)(void *data, int64_t index),
                             void *data) {
    (void)state;
    while (count-- > 0) {
        task(data, count);
    }
    return 0;
}

/* The contexts made so far. */
static struct kept_context {
    uint8_t levels[NUM_RUN_FACTORS];
    attn_context *context;
} kept[MOST_CONTEXTS];
static int num_kept;

static void destroy_kept(void) {
    while (num_kept > 0) {
        attn_context_destroy(kept[--num_kept].context);
    }
}

static attn_context *create_context(const factor_set *set, const factor_case *chosen) {
    const int kernels = chosen->level[FACTOR_KERNELS], threads = chosen->level[FACTOR_THREADS];
    const int is_callers = threads == THREADS_OF_CALLER;
    const int32_t gemms[] = {ATTN_GEMM_AUTO, ATTN_GEMM_NATIVE, ATTN_GEMM_BLAS};
    const attn_context_config params = {
        .struct_size = sizeof params,
        .num_threads = is_callers ? 0 : 1 + threads,
        .parallel_for_width = is_callers ? 4 : 0,
        .engine = chosen->level[FACTOR_ENGINE],
        .gemm = gemms[chosen->level[FACTOR_GEMM]],
        .kernels = kernels == 0 ? NULL : set->factors[FACTOR_KERNELS].level_names[kernels],
        .parallel_for = is_callers ? run_backwards : NULL,
        .float32_weights = chosen->level[FACTOR_FLOAT32_WEIGHTS],
    };
    attn_context *context;
    if (attn_context_create(&params, &context) != ATTN_OK) {
        fprintf(stderr, "attn_context_create: %s\n", attn_last_error());
        abort();
    }
    return context;
}

/* What contexts differ in. */
static void context_levels(const factor_case *chosen, uint8_t *levels) {
    memcpy(levels, chosen->level, NUM_RUN_FACTORS);
    levels[FACTOR_DTYPE] = levels[FACTOR_WORKSPACE] = 0;
}

attn_context *case_context(const factor_set *set, const factor_case *chosen) {
    uint8_t levels[NUM_RUN_FACTORS];
    context_levels(chosen, levels);
    for (int i = 0; i < num_kept; ++i) {
        if (memcmp(kept[i].levels, levels, sizeof levels) == 0) {
            return kept[i].context;
        }
    }
    if (num_kept == 0) {
        atexit(destroy_kept);
    } else if (num_kept == MOST_CONTEXTS) {
        destroy_kept();
    }
    struct kept_context *added = &kept[num_kept++];
    memcpy(added->levels, levels, sizeof levels);
    added->context = create_context(set, chosen);
    return added->context;
}

watched_workspace workspace_create(const factor_case *chosen, size_t needed_bytes) {
    const int level = chosen->level[FACTOR_WORKSPACE];
    watched_workspace workspace = {0};
    if (level != WORKSPACE_NONE) {
        const size_t shift = level == WORKSPACE_UNALIGNED ? 13 : 0;
        workspace.bytes = needed_bytes + (level == WORKSPACE_LARGER ? 1000 : 0);
        workspace.memory_bytes = WORKSPACE_MARGIN + shift + workspace.bytes + WORKSPACE_MARGIN;
        workspace.memory = oracle_allocate((int64_t)workspace.memory_bytes, 1);
        memset(workspace.memory, WORKSPACE_FILL, workspace.memory_bytes);
        workspace.start = workspace.memory + WORKSPACE_MARGIN + shift;
    }
    return workspace;
}

int workspace_check(const watched_workspace *workspace, char *message, size_t message_bytes) {
    for (size_t byte = 0; byte < workspace->memory_bytes; ++byte) {
        const int64_t position = workspace->memory + byte - (unsigned char *)workspace->start;
        const int is_inside = position >= 0 && position < (int64_t)workspace->bytes;
        if (!is_inside && workspace->memory[byte] != WORKSPACE_FILL) {
            snprintf(message, message_bytes, "byte %lld of a workspace of %zu bytes was written",
                     (long long)position, workspace->bytes);
            return 1;
        }
    }
    return 0;
}

void workspace_destroy(watched_workspace *workspace) {
    free(workspace->memory);
    *workspace = (watched_workspace){0};
}

int call_failed(const char *name, int32_t status, call_outcome *outcome) {
    if (status == ATTN_OK) {
        return 0;
    }
    snprintf(outcome->message, sizeof outcome->message, "%s: %s: %s", name,
             attn_status_name(status), attn_last_error());
    return 1;
}

int outcome_is_tight(const compare_stats *stats) {
    const int are_few = test_strength() == 1 && stats->num_elements < FEW_ELEMENTS;
    return are_few || stats->largest_ratio > 1e-3;
}

static void stats_print(const char *name, const char *what, const compare_stats *stats) {
    if (stats->num_elements > 0) {
        printf("%s: %-7s %8lld elements, largest error / bound %.3f", name, what,
               (long long)stats->num_elements, stats->largest_ratio);
        printf(" (%lld NaN or infinite, %lld loosely bound, %lld left open)\n",
               (long long)stats->num_not_finite, (long long)stats->num_loose,
               (long long)stats->num_open);
    }
}

void outcome_print(const char *name, const call_outcome *outcome) {
    stats_print(name, "output", &outcome->output);
    stats_print(name, "weights", &outcome->weights);
    stats_print(name, "lse", &outcome->lse);
    stats_print(name, "scores", &outcome->scores);
    printf("%s: %lld calls, %lld of them with something to see, %lld visible positions\n", name,
           (long long)outcome->num_calls, (long long)outcome->num_seeing,
           (long long)outcome->num_visible);
}

/* Runs one case; prints it and returns 1 if it failed. */
static int64_t run_case(const char *name, const factor_set *set, const factor_case *chosen,
                        uint64_t seed, case_runner run, call_outcome *outcome) {
    char options[1600];
    if (run(set, chosen, seed, FREE_NONE, outcome) == 0) {
        return 0;
    }
    describe_case(set, chosen, options, sizeof options);
    printf("%s: seed %llu: %s\n    %s\n", name, (unsigned long long)seed, outcome->message,
           options);
    return 1;
}

/* Runs the case, and marks its pairs if some row of it saw a key. */
static int64_t run_and_mark(const char *name, pair_table *seen, const factor_case *chosen,
                            uint64_t seed, case_runner run, call_outcome *outcome) {
    const int64_t seeing_before = outcome->num_seeing;
    const int64_t failed = run_case(name, seen->set, chosen, seed, run, outcome);
    if (outcome->num_seeing > seeing_before) {
        pair_table_mark(seen, chosen);
    }
    return failed;
}

static int64_t run_array(const char *name, pair_table *seen, uint64_t seed, case_runner run,
                         call_outcome *outcome) {
    const factor_set *set = seen->set;
    covering_array array = covering_array_create(set, seed);
    printf("%s: %d factors, %d levels, %lld pairs (%lld more exclude each other), %lld cases of "
           "strength %d, %lld pairs missing\n",
           name, set->count, seen->num_levels, (long long)array.count.num_pairs,
           (long long)array.count.num_forbidden, (long long)array.num_cases, test_strength(),
           (long long)array.count.num_missing);
    if (array.count.num_missing > 0) {
        printf("%s: the first missing pair: %s\n", name, array.count.missing);
    }
    int64_t failures = array.count.num_missing;
    for (int64_t i = 0; i < array.num_cases; ++i) {
        failures += run_and_mark(name, seen, &array.cases[i], seed + (uint64_t)i, run, outcome);
    }
    covering_array_destroy(&array);
    return failures;
}

int64_t run_covering_array(const char *name, const factor_set *set, uint64_t seed, case_runner run,
                           call_outcome *outcome) {
    random_state random = random_seeded(seed);
    pair_table seen = pair_table_create(set);
    factor_case chosen;
    pair_table_forbid_void(&seen);
    int64_t failures = run_array(name, &seen, seed, run, outcome);
    /* Every other case is not greedy: pairs that hide all keys when they meet would be put together
     * for ever. */
    for (int64_t i = 0; i < MOST_MORE && next_covering_case(&seen, i % 2 == 0, &random, &chosen);
         ++i) {
        failures += run_and_mark(name, &seen, &chosen, random_bits(&random), run, outcome);
    }
    const pair_count count = pair_table_count(&seen);
    failures += count.num_missing;
    printf("%s: %lld pairs met where a row sees a key, %lld did not%s%s\n", name,
           (long long)(count.num_pairs - count.num_missing), (long long)count.num_missing,
           count.num_missing > 0 ? ", first " : "", count.missing);
    pair_table_destroy(&seen);
    return failures;
}
