/* SPDX-License-Identifier: BSD-3-Clause
 *
 * chosen_context.h: the context that --threads and --kernels ask for.
 */
#ifndef ATTN_CLI_CHOSEN_CONTEXT_H
#define ATTN_CLI_CHOSEN_CONTEXT_H

#include <attention/context.h>

#include "option_parsing.h"

/* What is not given (kernels NULL, ATTN_GEMM_AUTO) comes from the default context, and so from the
 * environment; where nothing is, *context is NULL, which means that one. *info tells what it runs with. Returns
 * EXIT_DONE, or EXIT_COMPUTATION after an error line. */
int choose_context(const option_integer *threads, const char *kernels, int32_t gemm,
                   attn_context **context, attn_context_info *info);

#endif
