/* SPDX-License-Identifier: BSD-3-Clause
 *
 * command_info.c: "attn info": what the library is and runs with here.
 */
#include <stdio.h>
#include <string.h>

#include <attention/attention.h>
#include <cjson/cJSON.h>

#include "json_print.h"
#include "option_parsing.h"
#include "program_commands.h"
#include "program_exit.h"

/* A gemm of attn_context_info, ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE. */
static const char *gemm_name(int32_t gemm) {
    return gemm == ATTN_GEMM_BLAS ? "blas" : "native";
}

static void print_text(const attn_context_info *info) {
    printf("libattention %s\n", attn_version_string());
    printf("  build    %s\n", attn_build_info());
    printf("  blas     %s%s\n", info->blas, info->blas_is_serial ? " (one caller at a time)" : "");
    printf("  products attention of float64 %s, projections %s\n", gemm_name(info->attention_gemm),
           gemm_name(info->projection_gemm));
    printf("  kernels ");
    for (int32_t i = 0; attn_kernels_name(i) != NULL; i++) {
        const char *name = attn_kernels_name(i);
        printf("%s %s%s", i == 0 ? "" : ",", name,
               strcmp(name, info->kernels) == 0 ? " (in use)" : "");
    }
    printf("\n  threads  %d\n", (int)info->num_threads);
}

static int print_json(const attn_context_info *info) {
    cJSON *root = cJSON_CreateObject();
    int failed =
        cJSON_AddStringToObject(root, "version", attn_version_string()) == NULL ||
        cJSON_AddStringToObject(root, "build", attn_build_info()) == NULL ||
        cJSON_AddStringToObject(root, "blas", info->blas) == NULL ||
        cJSON_AddBoolToObject(root, "blas_is_serial", info->blas_is_serial) == NULL ||
        cJSON_AddStringToObject(root, "attention_gemm", gemm_name(info->attention_gemm)) == NULL ||
        cJSON_AddStringToObject(root, "projection_gemm", gemm_name(info->projection_gemm)) ==
            NULL ||
        cJSON_AddStringToObject(root, "kernels", info->kernels) == NULL ||
        cJSON_AddNumberToObject(root, "threads", info->num_threads) == NULL;
    cJSON *available = cJSON_AddArrayToObject(root, "kernels_available");
    for (int32_t i = 0; attn_kernels_name(i) != NULL && !failed; i++) {
        cJSON *name = cJSON_CreateString(attn_kernels_name(i));
        failed = available == NULL || name == NULL || !cJSON_AddItemToArray(available, name);
    }
    return print_json_line(root, failed);
}

int command_info(int count, char *const *arguments) {
    int json = 0;
    const option_spec specs[] = {{"--json", OPTION_FLAG, &json, 0, 0, NULL}};
    attn_context_info info = {.struct_size = sizeof info};
    if (options_parse(specs, 1, count, arguments, NULL, NULL) != EXIT_DONE) {
        return EXIT_USAGE;
    }
    attn_status status = attn_context_describe(NULL, &info);
    if (status != ATTN_OK) {
        return program_fail_library("context", status);
    }
    if (!json) {
        print_text(&info);
        return EXIT_DONE;
    }
    return print_json(&info);
}
