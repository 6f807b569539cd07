/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv.h: where the keys and values of sequences lie: in a cache that grows, one behind the other
 * without padding, or in pages of fixed size. One description for every function that reads or
 * writes them.
 *
 * Axes. B: sequences. Hk, Hv: heads of key and of value. C: rows there is room for in a sequence.
 * E, Ev: as in sdpa.h. A sequence's keys are numbered from 0; which row of memory has key j is told
 * by one of
 *
 *   neither table nor starts   key (batch axes, Hk, C, E): row j of the sequence's own
 *   starts                     key (Hk, total, E): row starts[b] + j
 *   page_table                 key (pages, Hk, page, E): row j % page of page
 *                              page_table[b, j / page], C = M * page
 *   page_table, page_starts    likewise of page page_table[page_starts[b] + j / page]
 *
 * Strides are free, so that pages of any order of axes are one shape: (pages, page, Hk, E) is a
 * view with the strides of those axes exchanged. Pages may be shared by sequences.
 */
#ifndef ATTENTION_KV_H
#define ATTENTION_KV_H

#include <stdint.h>

#include <attention/export.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* Grows at its end only; pass by pointer only. */
typedef struct attn_kv {
    /* sizeof(attn_kv) */
    uint64_t struct_size;

    /* see the top of this file; any type that attn_sdpa has beside its query */
    const attn_tensor *key;

    /* likewise, with Hv heads and Ev features; its type is free of key's */
    const attn_tensor *value;

    /* int64 or int32, (batch axes, M): numbers of pages, 0 to pages - 1 where causality, window and
     * length let a row see a key in them, else anything: an entry that is not needed is never
     * followed. With page_starts (P): the pages of all sequences. NULL: nothing lies in pages */
    const attn_tensor *page_table;

    /* int64 or int32, (B + 1), with page_table only: sequence b has entries page_starts[b] to
     * page_starts[b + 1] - 1 of it; ascending, 0 to P. Then there is one batch axis, B */
    const attn_tensor *page_starts;

    /* int64 or int32, (B + 1), without page_table only: sequence b has rows starts[b] to
     * starts[b + 1] - 1 of key and value; ascending, 0 to total. Then there is one batch axis, B */
    const attn_tensor *starts;

    /* int64 or int32, broadcastable to the batch axes: rows in use of a sequence, from its first
     * one on, 0 to as many as it has; NULL: all */
    const attn_tensor *lengths;
} attn_kv;

ATTN_END_DECLS

#endif
