/* SPDX-License-Identifier: BSD-3-Clause
 *
 * small_calls.h: a computation and a failure, small enough to be made anywhere.
 */
#ifndef PLUGIN_SMALL_CALLS_H
#define PLUGIN_SMALL_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/attention.h>

/* Attention of equal rows, which is those rows again, large enough for several threads: whether the
 * context (NULL: the default one) computes that. */
bool computes_attention(attn_context *context, int32_t dtype);

/* Whether a refused call says with its status what was wrong: `detail`, word by word. */
bool refuses_with_detail(const char *detail);

/* What refuses_with_detail finds where details are kept. */
#define REFUSED_DETAIL "context: expected a place for the result, got NULL"

#endif
