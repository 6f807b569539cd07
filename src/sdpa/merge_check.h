/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_check.h: every argument error of attn_sdpa_merge.
 */
#ifndef ATTNI_SDPA_MERGE_CHECK_H
#define ATTNI_SDPA_MERGE_CHECK_H

#include "base/error.h"
#include "sdpa/merge_problem.h"

/* `given` holds the arguments in outputs, lses, output, lse and count; the rest of it is filled. */
attn_status attni_merge_check(const attn_merge_params *params, attni_merge_problem *given);

#endif
