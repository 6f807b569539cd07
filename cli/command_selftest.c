/* SPDX-License-Identifier: BSD-3-Clause
 *
 * command_selftest.c: "attn selftest": whether this machine computes what it should.
 */
#include <stdio.h>
#include <time.h>

#include <attention/attention.h>
#include <cjson/cJSON.h>

#include "chosen_context.h"
#include "json_print.h"
#include "option_parsing.h"
#include "program_commands.h"
#include "program_exit.h"

/* What attn_selftest has told so far. */
typedef struct selftest_tally {
    cJSON *list; /* of objects, or NULL: lines are printed */
    int json_failed;
    int num_checks;
    int num_failed;
    int num_wrong; /* among them: those that found a wrong result */
} selftest_tally;

static void add_to_list(selftest_tally *tally, const char *check, attn_status status,
                        const char *detail) {
    cJSON *object = cJSON_CreateObject();
    if (cJSON_AddStringToObject(object, "check", check) == NULL ||
        cJSON_AddStringToObject(object, "status", attn_status_name(status)) == NULL ||
        cJSON_AddStringToObject(object, "detail", detail) == NULL ||
        !cJSON_AddItemToArray(tally->list, object)) {
        cJSON_Delete(object);
        tally->json_failed = 1;
    }
}

static void count_check(void *state, const char *check, attn_status status, const char *detail) {
    selftest_tally *tally = state;
    tally->num_checks++;
    tally->num_failed += status != ATTN_OK;
    tally->num_wrong += status == ATTN_ERROR_SELFTEST;
    if (tally->list != NULL) {
        add_to_list(tally, check, status, detail);
    } else if (status == ATTN_OK) {
        printf("  ok      %s\n", check);
    } else {
        printf("  FAILED  %s: %s (%s)\n", check, detail, attn_status_name(status));
    }
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Takes the list over. */
static int print_json(selftest_tally *tally, const attn_context_info *info, double seconds) {
    cJSON *root = cJSON_CreateObject();
    const int failed = tally->json_failed ||
                       cJSON_AddStringToObject(root, "version", attn_version_string()) == NULL ||
                       cJSON_AddStringToObject(root, "blas", info->blas) == NULL ||
                       cJSON_AddStringToObject(root, "kernels", info->kernels) == NULL ||
                       cJSON_AddNumberToObject(root, "threads", info->num_threads) == NULL ||
                       cJSON_AddNumberToObject(root, "failed", tally->num_failed) == NULL ||
                       cJSON_AddNumberToObject(root, "seconds", seconds) == NULL;
    if (!cJSON_AddItemToObject(root, "checks", tally->list)) {
        cJSON_Delete(tally->list);
    }
    return print_json_line(root, failed);
}

static void print_end(const selftest_tally *tally, double seconds) {
    if (tally->num_failed == 0) {
        printf("%d checks passed in %.2f s\n", tally->num_checks, seconds);
    } else {
        printf("%d of %d checks FAILED\n", tally->num_failed, tally->num_checks);
    }
    if (tally->num_wrong > 0) {
        printf("Try other kernels (--kernels; attn info lists them) and another BLAS, and report "
               "it with these lines.\n");
    }
}

static int run_checks(attn_context *context, const attn_context_info *info, int json) {
    selftest_tally tally = {.list = json ? cJSON_CreateArray() : NULL};
    if (json && tally.list == NULL) {
        return program_fail(EXIT_COMPUTATION, "--json: out of memory");
    }
    if (!json) {
        printf("libattention %s, kernels %s, threads %d, blas %s\n", attn_version_string(),
               info->kernels, (int)info->num_threads, info->blas);
    }
    const double start = seconds_now();
    const attn_status status = attn_selftest(
        context, &(attn_selftest_params){sizeof(attn_selftest_params), count_check, &tally});
    const double seconds = seconds_now() - start;
    if (json && print_json(&tally, info, seconds) != EXIT_DONE) {
        return EXIT_COMPUTATION;
    }
    if (!json) {
        print_end(&tally, seconds);
    }
    if (status == ATTN_OK) {
        return EXIT_DONE;
    }
    return tally.num_wrong > 0 ? EXIT_DIFFERENCE : EXIT_COMPUTATION;
}

int command_selftest(int count, char *const *arguments) {
    int json = 0;
    int blas = 0;
    option_integer threads = {0, 0};
    const char *kernels = NULL;
    const option_spec specs[] = {{"--threads", OPTION_INTEGER, &threads, 1, 1024, NULL},
                                 {"--kernels", OPTION_TEXT, &kernels, 0, 0, NULL},
                                 {"--blas", OPTION_FLAG, &blas, 0, 0, NULL},
                                 {"--json", OPTION_FLAG, &json, 0, 0, NULL}};
    attn_context *context;
    attn_context_info info;
    if (options_parse(specs, 4, count, arguments, NULL, NULL) != EXIT_DONE) {
        return EXIT_USAGE;
    }
    if (choose_context(&threads, kernels, blas ? ATTN_GEMM_BLAS : ATTN_GEMM_AUTO, &context,
                       &info) != EXIT_DONE) {
        return EXIT_COMPUTATION;
    }
    const int exit_code = run_checks(context, &info, json);
    attn_context_destroy(context);
    return exit_code;
}
