/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_golden.c: runs a directory of reference cases (README.md) through the public interface.
 *
 *     test_golden [DIRECTORY]
 *
 * Every .safetensors file of the directory, in the order of the names, is run as stored in float32
 * and again converted to float64, with every kernel this CPU runs, by the BLAS engine with both
 * kinds of matrix product and by the fused engine, which computes float32 only. A case whose masks
 * hold floats is run a third time: float64 with float32 masks. Engines that are within the same
 * bound of the same numbers are within twice that of one another. The exit status is 0 if every
 * case was found as expected, and 1 otherwise, also if there are no cases.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden_run.h"

enum { MAX_CONTEXTS = 16, OP_COUNT = 4, PATH_BYTES = 4096 };

/* One op of the cases and what has been seen of it. */
typedef struct op_entry {
    const char *name;
    void (*run)(golden_case *golden, const golden_setting *setting, golden_report *report);
    const char *why_not_run; /* for an op that has no run */
    int64_t cases;
    int64_t expect_ok;
    int64_t expect_error;
    int64_t with_gradients;
    int64_t not_run;
} op_entry;

typedef struct golden_suite {
    golden_setting contexts[MAX_CONTEXTS]; /* context and context_name; the rest varies */
    int context_count;
    op_entry ops[OP_COUNT];
    golden_report report;
} golden_suite;

static void prepare_ops(golden_suite *suite) {
    const op_entry ops[OP_COUNT] = {
        {.name = "sdpa", .run = golden_run_sdpa},
        {.name = "mha", .run = golden_run_mha},
        {.name = "fullwidth", .run = golden_run_fullwidth},
        {.name = "mha_functional", .why_not_run = "static key/value have no entry point"},
    };
    memcpy(suite->ops, ops, sizeof ops);
}

typedef struct engine_choice {
    const char *name;
    int32_t engine;
    int32_t gemm;
} engine_choice;

/* Adds a context to the suite. False if one that must exist cannot be made. */
static bool make_context(golden_suite *suite, const char *kernels, const engine_choice *choice) {
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = 2,
                                        .engine = choice->engine,
                                        .gemm = choice->gemm,
                                        .kernels = kernels};
    golden_setting *setting = &suite->contexts[suite->context_count];
    snprintf(setting->context_name, sizeof setting->context_name, "%s, %s", kernels, choice->name);
    setting->is_float32_only = choice->engine == ATTN_ENGINE_FUSED;
    const attn_status status = attn_context_create(&params, &setting->context);
    if (status == ATTN_ERROR_UNSUPPORTED && choice->gemm == ATTN_GEMM_BLAS) {
        printf("not run with %s: %s\n", setting->context_name, attn_last_error());
        return true;
    }
    if (status != ATTN_OK) {
        printf("FAILED context %s: %s\n", setting->context_name, attn_last_error());
        return false;
    }
    suite->context_count += 1;
    return true;
}

/* One context for each kernels name, engine and matrix product. */
static bool make_contexts(golden_suite *suite) {
    static const engine_choice choices[] = {
        {"blas", ATTN_ENGINE_BLAS, ATTN_GEMM_BLAS},
        {"native", ATTN_ENGINE_BLAS, ATTN_GEMM_NATIVE},
        {"fused", ATTN_ENGINE_FUSED, ATTN_GEMM_AUTO},
    };
    enum { NUM_CHOICES = sizeof choices / sizeof choices[0] };
    for (int32_t kernel = 0; attn_kernels_name(kernel) != NULL; ++kernel) {
        for (int c = 0; c < NUM_CHOICES; ++c) {
            if (suite->context_count == MAX_CONTEXTS ||
                !make_context(suite, attn_kernels_name(kernel), &choices[c])) {
                return false;
            }
        }
    }
    return suite->context_count > 0;
}

static op_entry *find_op(golden_suite *suite, const char *name) {
    for (int i = 0; i < OP_COUNT; ++i) {
        if (strcmp(suite->ops[i].name, name) == 0) {
            return &suite->ops[i];
        }
    }
    return NULL;
}

static void run_in_context(golden_suite *suite, golden_case *golden, const op_entry *op,
                           golden_setting setting, bool expects_error) {
    setting.dtype = ATTN_DTYPE_FLOAT32;
    op->run(golden, &setting, &suite->report);
    if (expects_error || setting.is_float32_only) {
        return; /* conversion would mend the cases that mix dtypes */
    }
    setting.dtype = ATTN_DTYPE_FLOAT64;
    op->run(golden, &setting, &suite->report);
    if (golden_has_float_input(golden, "attn_mask") ||
        golden_has_float_input(golden, "key_padding_mask")) {
        setting.stored_float_masks = true;
        op->run(golden, &setting, &suite->report);
    }
}

static void run_case(golden_suite *suite, golden_case *golden) {
    op_entry *op = find_op(suite, golden_option(golden, "op"));
    const char *expect = golden_option(golden, "expect");
    const bool expects_error = strcmp(expect, "error") == 0;
    if (op == NULL) {
        golden_fail(&suite->report, NULL, "unknown op \"%s\"", golden_option(golden, "op"));
        return;
    }
    if (!expects_error && strcmp(expect, "ok") != 0) {
        golden_fail(&suite->report, NULL, "unknown expect \"%s\"", expect);
        return;
    }
    op->cases += 1;
    if (op->run == NULL) {
        op->not_run += 1;
        printf("not run: %s: %s\n", golden->name, op->why_not_run);
        return;
    }
    op->expect_ok += !expects_error;
    op->expect_error += expects_error;
    op->with_gradients += golden_flag(golden, "grads");
    for (int i = 0; i < suite->context_count; ++i) {
        run_in_context(suite, golden, op, suite->contexts[i], expects_error);
    }
}

static void run_file(golden_suite *suite, const char *directory, const char *file_name) {
    char path[PATH_BYTES];
    char name[GOLDEN_NAME_BYTES];
    char error[512];
    snprintf(path, sizeof path, "%s/%s", directory, file_name);
    snprintf(name, sizeof name, "%.*s", (int)(strrchr(file_name, '.') - file_name), file_name);
    golden_report_begin_case(&suite->report, name);
    golden_case golden;
    if (!golden_case_open(&golden, path, name, error, sizeof error)) {
        golden_fail(&suite->report, NULL, "%s", error);
        return;
    }
    run_case(suite, &golden);
    golden_report_end_case(&suite->report);
    golden_case_close(&golden);
}

static int is_case_file(const struct dirent *entry) {
    static const char ending[] = ".safetensors";
    const size_t length = strlen(entry->d_name);
    return length > strlen(ending) && strcmp(entry->d_name + length - strlen(ending), ending) == 0;
}

static void print_summary(const golden_suite *suite, const char *directory, int files) {
    const golden_report *report = &suite->report;
    printf("%d cases found in %s; %d contexts:", files, directory, suite->context_count);
    for (int i = 0; i < suite->context_count; ++i) {
        printf("%s %s", i > 0 ? ";" : "", suite->contexts[i].context_name);
    }
    printf("\n  %-15s %6s %9s %12s %15s %8s\n", "op", "cases", "expect ok", "expect error",
           "with gradients*", "not run");
    int64_t run = 0;
    for (int i = 0; i < OP_COUNT; ++i) {
        const op_entry *op = &suite->ops[i];
        run += op->cases - op->not_run;
        printf("  %-15s %6lld %9lld %12lld %15lld %8lld\n", op->name, (long long)op->cases,
               (long long)op->expect_ok, (long long)op->expect_error, (long long)op->with_gradients,
               (long long)op->not_run);
    }
    printf("  * of sdpa they were compared, too; of the others the forward part was run\n");
    golden_report_print_scores(report);
    printf("%lld cases run: %lld forward and %lld backward calls compared, %lld calls refused as "
           "expected, %lld failures\n",
           (long long)run, (long long)report->forward_calls, (long long)report->backward_calls,
           (long long)report->refused_calls, (long long)report->failures);
}

/* Runs the files and prints the summary; returns whether all is well. */
static bool run_directory(golden_suite *suite, const char *directory) {
    struct dirent **entries;
    const int count = scandir(directory, &entries, is_case_file, alphasort);
    if (count <= 0) {
        printf("no golden cases: %s %s\n", directory,
               count < 0 ? "cannot be read" : "holds no .safetensors file");
        if (count == 0) {
            free(entries);
        }
        return false;
    }
    prepare_ops(suite);
    const bool ready = make_contexts(suite);
    for (int i = 0; i < count; ++i) {
        if (ready) {
            run_file(suite, directory, entries[i]->d_name);
        }
        free(entries[i]);
    }
    free(entries);
    print_summary(suite, directory, count);
    for (int i = 0; i < suite->context_count; ++i) {
        attn_context_destroy(suite->contexts[i].context);
    }
    return ready && suite->report.failures == 0;
}

int main(int argc, char **argv) {
    if (argc > 2) {
        fprintf(stderr, "usage: test_golden [DIRECTORY]\n");
        return EXIT_FAILURE;
    }
    static golden_suite suite;
    return run_directory(&suite, argc == 2 ? argv[1] : GOLDEN_DIRECTORY) ? EXIT_SUCCESS
                                                                         : EXIT_FAILURE;
}
