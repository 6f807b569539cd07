/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_scales.h: which scales and zeros of a quantised cache new rows are stored with, and which
 * they bring.
 */
#ifndef ATTNI_CACHE_APPEND_SCALES_H
#define ATTNI_CACHE_APPEND_SCALES_H

#include "cache/append_problem.h"
#include "problem/key_source.h"

/* Of key or value of the cache, `which`, whose tensors were checked by themselves. */
attn_status attni_check_scales(const attni_input_views *inputs, int32_t which,
                               attni_new_rows *part);

/* Whether new rows write tensor ATTNI_KV_... of a checked kv: key and value, and a scale or zero that
 * has a row for every row of its tensor. */
bool attni_append_writes(const attn_kv *kv, int32_t which);

#endif
