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

#include <attention/context.h>
#include <attention/export.h>
#include <attention/status.h>
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
     * length let a row see a key in them, or its score before the mask is asked for, else anything:
     * an entry that is not needed is never followed. With page_starts (P): the pages of all
     * sequences. NULL: nothing lies in pages */
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

/* Options of attn_kv_append. All zero after struct_size: as many new rows for each sequence, at the
 * end of its rows in use. Grows at its end only; pass by pointer only. */
typedef struct attn_kv_append_params {
    /* sizeof(attn_kv_append_params) */
    uint64_t struct_size;

    /* int64 or int32, (B + 1): sequence b has new rows starts[b] to starts[b + 1] - 1 of key (Hk,
     * total, E) and value; ascending, 0 to total. Then there is one batch axis, B. NULL: key is
     * (batch axes, Hk, L, E) */
    const attn_tensor *starts;

    /* int64 or int32, broadcastable to (batch axes, L), or with starts to (total): the row of its
     * sequence where a new row goes; negative: it is skipped. NULL: new row i of n goes to
     * lengths - n + i */
    const attn_tensor *positions;
} attn_kv_append_params;

/*
 * Stores new rows of keys and values where kv says:
 *     row(positions[b, i]) of sequence b = new row i, converted
 * lengths count the new rows already, so that a step advances them once, and every layer's append,
 * rotation and attention view the same tensor. lengths are never written.
 *
 * Shapes     key (batch axes, Hk, L, E), value (batch axes, Hv, L, Ev), or with starts (Hk, total,
 *            E) and (Hv, total, Ev); the batch axes are kv's: those of kv->key, of page_table
 *            without its last axis, or B.
 * Types      key, value and what they are stored in: float32, float64, bfloat16 or float16, each as
 *            it is; a number is rounded once, to nearest, where the stored type is narrower.
 * Layout     any strides; kv->key and kv->value, which are written, as an output's.
 * Aliasing   kv->key and kv->value must not overlap each other nor any other tensor of the call;
 *            what counts as overlap: see attn_sdpa. Where two new rows have the same place, in one
 *            sequence or by a page that two share, what is there afterwards is one of the two, or
 *            parts of both.
 * Errors     found before anything is written: ATTN_ERROR_NULL kv, key, value, data of either, and
 *            of what says where sequences are; kv->lengths without positions; ATTN_ERROR_VALUE
 *            struct_size, starts that do not ascend or end past their rows, a length out of range
 *            or below the number of new rows, a position past the sequence's room, a page of a new
 *            row which is none; ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE; ATTN_ERROR_OVERLAP;
 *            ATTN_ERROR_OVERFLOW; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD; ATTN_ERROR_UNSUPPORTED a
 *            dtype of a later version, or a newer struct.
 * Threads    any number of calls at once on tensors that no other call writes. One that writes
 *            lengths, starts, positions or pages during a call makes rows go elsewhere within kv,
 *            or the call fail with ATTN_ERROR_VALUE.
 * Since 0.1. A call of the kind of vLLM's reshape_and_cache and FlashInfer's
 * append_paged_kv_cache.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_kv_append(attn_context *context, const attn_kv *kv,
                                                    const attn_tensor *key,
                                                    const attn_tensor *value,
                                                    const attn_kv_append_params *params);

ATTN_END_DECLS

#endif
