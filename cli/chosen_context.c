/* SPDX-License-Identifier: BSD-3-Clause
 *
 * chosen_context.c: see chosen_context.h.
 */
#include "chosen_context.h"

#include "program_exit.h"

int choose_context(const option_integer *threads, const char *kernels, int32_t gemm,
                   attn_context **context, attn_context_info *info) {
    attn_status status = ATTN_OK;
    *context = NULL;
    *info = (attn_context_info){.struct_size = sizeof *info};
    if (threads->given || kernels != NULL || gemm != ATTN_GEMM_AUTO) {
        attn_context_config params = {.struct_size = sizeof params, .gemm = gemm};
        attn_context_info defaults = {.struct_size = sizeof defaults};
        if (!threads->given || kernels == NULL) {
            status = attn_context_describe(NULL, &defaults);
        }
        params.num_threads = threads->given ? (int32_t)threads->value : defaults.num_threads;
        params.kernels = kernels != NULL ? kernels : defaults.kernels;
        status = status != ATTN_OK ? status : attn_context_create(&params, context);
    }
    status = status != ATTN_OK ? status : attn_context_describe(*context, info);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library("context", status);
}
