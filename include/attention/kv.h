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
 * Quantised keys and values. Elements may be integers, which mean
 *
 *     value = (element - zero) * scale
 *
 *   ATTN_DTYPE_INT8      -127 to 127         zero if none is given: 0
 *   ATTN_DTYPE_UINT8     0 to 255                                   128
 *   ATTN_DTYPE_INT4X2    -7 to 7                                    0
 *   ATTN_DTYPE_UINT4X2   0 to 15                                    8
 *   ATTN_DTYPE_Q8_0      blocks that have their own scale: neither scale nor zero is given
 *   ATTN_DTYPE_Q4_0      likewise
 *
 * (-128 and -8 are read as what they are, and never written.) What a result is off by is what it
 * would be for these values as float32, which rounds them once or twice. E and Ev count values, and
 * so do the shapes above: of ATTN_DTYPE_INT4X2 the last axis has E / 2 elements, of ATTN_DTYPE_Q8_0
 * E / 32.
 *
 * A scale has as many axes as the tensor it is for, and each of its lengths divides that tensor's
 * (in values): value i along an axis has scale i / (the tensor's length / the scale's). That is
 * all there is to know; with key (batch, Hk, C, E) a scale of shape
 *
 *   (1, 1, 1, 1)             is one for the tensor
 *   (1, Hk, 1, 1)            one for each head
 *   (1, Hk, 1, E)            one for each channel
 *   (batch, Hk, C, 1)        one for each row, as attn_kv_append writes them
 *   (batch, Hk, C, E / 32)   one for each block of 32 values of a row
 *
 * and with page_table a scale of each row is (pages, Hk, page, 1), with starts (Hk, total, 1).
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

    /* see the top of this file; any type that attn_sdpa has beside its query, or a quantised one
     * (not beside a float64 query) */
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

    /* float32, bfloat16 or float16: the scales of key where it has integers without their own, by
     * the rule at the top of this file; NULL: 1. Beside any other key it is refused */
    const attn_tensor *key_scale;

    /* likewise of value */
    const attn_tensor *value_scale;

    /* likewise what is subtracted from elements of key before they are scaled, of key's rank and by
     * the same rule; its shape is free of key_scale's. NULL: the table at the top of this file */
    const attn_tensor *key_zero;

    /* likewise of value */
    const attn_tensor *value_zero;
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
 * Where kv->key has integers the new row is divided by its scale, and kv->key_zero added, and
 * rounded to the nearest element, ties to even; what lies beyond the elements in the table at the
 * top of this file becomes the nearest of them. A scale whose rows are as many as the cache's (in a
 * page, as a page's) is written: there is one for each new row, or for each block of it, and then
 * it must be every row's own (as long as the cache on all axes but the last, of which it may be a
 * part). Any other scale is read. What is written is, of the values x of a row or block,
 *
 *     without zero    scale = max |x| / n         n = 127 of 8 bits, 7 of 4 bits
 *     with zero       scale = (max(x, 0) - min(x, 0)) / (highest - lowest element)
 *                     zero  = lowest element - min(x, 0) / scale, rounded to an integer
 *
 * rounded up to the scale's type, and elements are found with the number that is stored; so a value
 * that is read back is off by half a scale at most, beside the rounding of a float32, and as often
 * above as below. A zero is written exactly where the scale is. A block of zeroes has scale 0, and
 * so has one whose scale is 0 where it is read: its elements are the zero. A block with an infinity
 * or a NaN has scale NaN: it is read as NaN. (With a scale that is read a NaN becomes the zero, and
 * an infinity the outermost element.) ATTN_DTYPE_Q8_0 is written by ggml's rule: scale d = max |x|
 * / 127, elements x * (1 / d) in float32, rounded to nearest, ties away from zero, d then rounded
 * to float16. A scale past the largest number of its type is infinite, and its block is read as
 * NaN. ATTN_DTYPE_Q4_0 is only read.
 *
 * lengths count the new rows already, so that a step advances them once, and every layer's append,
 * rotation and attention view the same tensor. lengths are never written.
 *
 * Shapes     key (batch axes, Hk, L, E), value (batch axes, Hv, L, Ev), or with starts (Hk, total,
 *            E) and (Hv, total, Ev); the batch axes are kv's: those of kv->key, of page_table
 *            without its last axis, or B.
 * Types      key, value and what they are stored in: float32, float64, bfloat16 or float16, each as
 *            it is; a number is rounded once, to nearest, where the stored type is narrower; or
 *            stored as integers, see above, of float64 as rounded to float32.
 * Layout     any strides; kv->key and kv->value, and scales and zeros that are written, as an
 *            output's.
 * Aliasing   what is written must not overlap each other nor any other tensor of the call; what
 *            counts as overlap: see attn_sdpa. Where two new rows have the same place, in one
 *            sequence or by a page that two share, what is there afterwards is one of the two, or
 *            parts of both.
 * Errors     found before anything is written: ATTN_ERROR_NULL kv, key, value, data of either, and
 *            of what says where sequences are; kv->lengths without positions; ATTN_ERROR_VALUE
 *            struct_size, starts that do not ascend or end past their rows, a length out of range
 *            or below the number of new rows, a position past the sequence's room, a page of a new
 *            row which is none, a zero beside a scale where one is written and the other read, a
 *            scale beside a type that has none; ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE;
 *            ATTN_ERROR_OVERLAP;
 *            ATTN_ERROR_OVERFLOW; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD; ATTN_ERROR_UNSUPPORTED
 *            keys or values stored as ATTN_DTYPE_Q4_0, a dtype of a later version, or a newer
 *            struct.
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
