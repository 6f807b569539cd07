/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_check.h: from a call of attn_kv_append as it comes to its canonical form.
 */
#ifndef ATTNI_CACHE_APPEND_CHECK_H
#define ATTNI_CACHE_APPEND_CHECK_H

#include <attention/kv.h>

#include "cache/append_problem.h"

/* Every argument error. */
attn_status attni_append_check(const attn_kv *kv, const attn_tensor *key, const attn_tensor *value,
                               const attn_kv_append_params *params, attni_append_problem *problem);

#endif
