/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_list.c: names beside tensors.
 */
#include "problem/tensor_list.h"

#include "base/versioned_struct.h"

void attni_list_tensor(attni_tensor_list *list, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        list->tensors[list->count++] = (attni_argument){name, tensor};
    }
}

static void list_kv(attni_tensor_list *list, const attn_kv *given) {
    attn_kv kv;
    (void)attni_struct_read("kv", given, ATTNI_BYTES_THROUGH(attn_kv, lengths), sizeof kv, &kv);
    attni_list_tensor(list, "kv.key", kv.key);
    attni_list_tensor(list, "kv.value", kv.value);
    attni_list_tensor(list, "kv.page_table", kv.page_table);
    attni_list_tensor(list, "kv.page_starts", kv.page_starts);
    attni_list_tensor(list, "kv.starts", kv.starts);
    attni_list_tensor(list, "kv.lengths", kv.lengths);
    attni_list_tensor(list, "kv.key_scale", kv.key_scale);
    attni_list_tensor(list, "kv.value_scale", kv.value_scale);
    attni_list_tensor(list, "kv.key_zero", kv.key_zero);
    attni_list_tensor(list, "kv.value_zero", kv.value_zero);
}

void attni_list_options(attni_tensor_list *list, const attn_sdpa_params *params) {
    attni_list_tensor(list, "mask", params->mask);
    attni_list_tensor(list, "bias", params->bias);
    attni_list_tensor(list, "mask_start", params->mask_start);
    attni_list_tensor(list, "position_bias", params->position_bias);
    attni_list_tensor(list, "query_offset", params->query_offset);
    attni_list_tensor(list, "key_lengths", params->key_lengths);
    attni_list_tensor(list, "alibi_slopes", params->alibi_slopes);
    attni_list_tensor(list, "sinks", params->sinks);
    attni_list_tensor(list, "query_starts", params->query_starts);
    if (params->kv != NULL) {
        list_kv(list, params->kv);
    }
}
