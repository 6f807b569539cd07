/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_run.h: stores the new rows.
 */
#ifndef ATTNI_CACHE_APPEND_RUN_H
#define ATTNI_CACHE_APPEND_RUN_H

#include "cache/append_problem.h"
#include "context/context.h"

attn_status attni_append_run(attn_context *context, const attni_append_problem *problem);

#endif
