/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_append.c: the public call that stores keys and values.
 */
#include <attention/kv.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "cache/append_check.h"
#include "cache/append_run.h"
#include "tensor/tensor_check.h"

/* What is written may not touch anything else; all of it was checked. */
static attn_status check_overlap(const attn_kv *given, const attn_tensor *key,
                                 const attn_tensor *value, const attn_kv_append_params *params) {
    attn_kv kv;
    attn_kv_append_params known;
    ATTNI_TRY(
        attni_struct_read("kv", given, ATTNI_BYTES_THROUGH(attn_kv, lengths), sizeof kv, &kv));
    ATTNI_TRY(attni_struct_read("params", params,
                                ATTNI_BYTES_THROUGH(attn_kv_append_params, positions), sizeof known,
                                &known));
    ATTNI_TRY(attni_check_writable("kv.key", kv.key));
    ATTNI_TRY(attni_check_writable("kv.value", kv.value));
    const attni_argument written[] = {{"kv.key", kv.key}, {"kv.value", kv.value}};
    const attni_argument read[] = {{"key", key},
                                   {"value", value},
                                   {"starts", known.starts},
                                   {"positions", known.positions},
                                   {"kv.page_table", kv.page_table},
                                   {"kv.page_starts", kv.page_starts},
                                   {"kv.starts", kv.starts},
                                   {"kv.lengths", kv.lengths}};
    return attni_check_outputs(written, 2, read, 8);
}

attn_status attn_kv_append(attn_context *context, const attn_kv *kv, const attn_tensor *key,
                           const attn_tensor *value, const attn_kv_append_params *params) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    attni_append_problem problem;
    ATTNI_TRY(attni_append_check(kv, key, value, params, &problem));
    ATTNI_TRY(check_overlap(kv, key, value, params));
    return attni_append_run(context, &problem);
}
