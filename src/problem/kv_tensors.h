/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_tensors.h: the tensors of an attn_kv one by one, under the names that messages give them:
 * attn_sdpa and attn_kv_append call the struct kv, a layer calls it its cache.
 */
#ifndef ATTNI_PROBLEM_KV_TENSORS_H
#define ATTNI_PROBLEM_KV_TENSORS_H

#include <attention/kv.h>

#include "tensor/tensor_check.h"

/* In the order of attn_kv. */
enum {
    ATTNI_KV_KEY,
    ATTNI_KV_VALUE,
    ATTNI_KV_PAGE_TABLE,
    ATTNI_KV_PAGE_STARTS,
    ATTNI_KV_STARTS,
    ATTNI_KV_LENGTHS,
    ATTNI_KV_KEY_SCALE,
    ATTNI_KV_VALUE_SCALE,
    ATTNI_KV_KEY_ZERO,
    ATTNI_KV_VALUE_ZERO,
    ATTNI_KV_TENSORS
};

typedef struct attni_kv_names {
    const char *kv; /* the struct itself */
    const char *of[ATTNI_KV_TENSORS];
} attni_kv_names;

extern const attni_kv_names attni_names_of_kv;    /* kv, kv.key, ... */
extern const attni_kv_names attni_names_of_cache; /* cache, cache.key, ... */

/* Today's form of a caller's struct. */
attn_status attni_kv_read(const attni_kv_names *names, const attn_kv *given, attn_kv *kv);

/* The tensors of today's form, NULL where there is none. */
void attni_kv_list(const attni_kv_names *names, const attn_kv *kv,
                   attni_argument tensors[ATTNI_KV_TENSORS]);

#endif
