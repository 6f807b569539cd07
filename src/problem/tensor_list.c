/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_list.c: names beside tensors.
 */
#include "problem/tensor_list.h"

#include "problem/kv_tensors.h"

void attni_list_tensor(attni_tensor_list *list, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        list->tensors[list->count++] = (attni_argument){name, tensor};
    }
}

/* kv was checked. */
static void list_kv(attni_tensor_list *list, const attn_kv *given) {
    attn_kv kv;
    attni_argument tensors[ATTNI_KV_TENSORS];
    (void)attni_kv_read(&attni_names_of_kv, given, &kv);
    attni_kv_list(&attni_names_of_kv, &kv, tensors);
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        attni_list_tensor(list, tensors[i].name, tensors[i].tensor);
    }
}

void attni_list_options(attni_tensor_list *list, const attn_sdpa_params *params) {
    attni_list_tensor(list, "mask", params->mask);
    attni_list_tensor(list, "bias", params->bias);
    attni_list_tensor(list, "mask_start", params->mask_start);
    attni_list_tensor(list, "position_bias", params->position_bias);
    attni_list_tensor(list, "block_mask", params->block_mask);
    attni_list_tensor(list, "query_offset", params->query_offset);
    attni_list_tensor(list, "key_lengths", params->key_lengths);
    attni_list_tensor(list, "alibi_slopes", params->alibi_slopes);
    attni_list_tensor(list, "sinks", params->sinks);
    attni_list_tensor(list, "query_starts", params->query_starts);
    if (params->kv != NULL) {
        list_kv(list, params->kv);
    }
}
