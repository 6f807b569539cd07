/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_tensors.c: names and tensors of an attn_kv.
 */
#include "problem/kv_tensors.h"

#include "base/versioned_struct.h"

#define NAMES_OF(KV)                                                                              \
    {                                                                                             \
        KV, {                                                                                     \
            [ATTNI_KV_KEY] = (KV ".key"), [ATTNI_KV_VALUE] = (KV ".value"),                       \
            [ATTNI_KV_PAGE_TABLE] = (KV ".page_table"),                                           \
            [ATTNI_KV_PAGE_STARTS] = (KV ".page_starts"), [ATTNI_KV_STARTS] = (KV ".starts"),     \
            [ATTNI_KV_LENGTHS] = (KV ".lengths"), [ATTNI_KV_KEY_SCALE] = (KV ".key_scale"),       \
            [ATTNI_KV_VALUE_SCALE] = (KV ".value_scale"), [ATTNI_KV_KEY_ZERO] = (KV ".key_zero"), \
            [ATTNI_KV_VALUE_ZERO] = (KV ".value_zero"),                                           \
        }                                                                                         \
    }

const attni_kv_names attni_names_of_kv = NAMES_OF("kv");
const attni_kv_names attni_names_of_cache = NAMES_OF("cache");

attn_status attni_kv_read(const attni_kv_names *names, const attn_kv *given, attn_kv *kv) {
    return attni_struct_read(names->kv, given, ATTNI_BYTES_THROUGH(attn_kv, lengths), sizeof *kv,
                             kv);
}

void attni_kv_list(const attni_kv_names *names, const attn_kv *kv,
                   attni_argument tensors[ATTNI_KV_TENSORS]) {
    const attn_tensor *const of[ATTNI_KV_TENSORS] = {
        [ATTNI_KV_KEY] = kv->key,
        [ATTNI_KV_VALUE] = kv->value,
        [ATTNI_KV_PAGE_TABLE] = kv->page_table,
        [ATTNI_KV_PAGE_STARTS] = kv->page_starts,
        [ATTNI_KV_STARTS] = kv->starts,
        [ATTNI_KV_LENGTHS] = kv->lengths,
        [ATTNI_KV_KEY_SCALE] = kv->key_scale,
        [ATTNI_KV_VALUE_SCALE] = kv->value_scale,
        [ATTNI_KV_KEY_ZERO] = kv->key_zero,
        [ATTNI_KV_VALUE_ZERO] = kv->value_zero,
    };
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        tensors[i] = (attni_argument){names->of[i], of[i]};
    }
}
