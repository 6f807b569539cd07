/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_check.h: from a call of attn_kv_append as it comes to its canonical form.
 */
#ifndef ATTNI_CACHE_APPEND_CHECK_H
#define ATTNI_CACHE_APPEND_CHECK_H

#include <attention/kv.h>

#include "cache/append_problem.h"
#include "problem/kv_tensors.h"

/* From attn_kv_append, or from a layer that computes the new rows itself. */
typedef struct attni_append_request {
    const attn_kv *kv;
    const attni_kv_names *kv_names; /* what messages call it */
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_kv_append_params *params;
    attni_data_rule row_data; /* of key and value */
    attni_data_rule kv_data;  /* of kv and params; ignored, nobody asks where rows go either */
} attni_append_request;

/* Every argument error but overlap. */
attn_status attni_append_check(const attni_append_request *request, attni_append_problem *problem);

#endif
