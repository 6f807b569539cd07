/* SPDX-License-Identifier: BSD-3-Clause
 *
 * softmax.h: masks, and the stable softmax of rows.
 *
 * The mask kinds defined here are used by every function of the library that takes a mask. PyTorch
 * gives a bool mask opposite meanings in its two attention functions; here the kind says which is
 * meant:
 *
 *   ATTN_MASK_BOOL_INCLUDE   true: the position takes part      as scaled_dot_product_attention
 *   ATTN_MASK_BOOL_EXCLUDE   true: the position is masked out   as nn.MultiheadAttention
 *   ATTN_MASK_ADDITIVE       the value is added to the score
 *
 * An additive -inf masks out exactly as a bool mask does; finite values never do, however large: a
 * row of -1e30 everywhere is an ordinary row, and the sum of a finite score and finite masks stays
 * finite, the largest number of the scores' type where it would exceed it.
 *
 * A mask's shape is broadcast as in PyTorch: aligned at the last axis, missing axes and axes of
 * length 1 repeat. It must broadcast *to* the scores: it never enlarges them. Nothing is copied for
 * that.
 *
 * An empty row, in which no position is visible (or which has length 0), has weights 0 and lse
 * -inf. Never NaN.
 */
#ifndef ATTENTION_SOFTMAX_H
#define ATTENTION_SOFTMAX_H

#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* What a mask means. */
enum attn_mask_kind {
    ATTN_MASK_NONE = 0,         /* there is no mask; an error if one is given */
    ATTN_MASK_ADDITIVE = 1,     /* dtype of query (of input, in attn_softmax), or float32 */
    ATTN_MASK_BOOL_INCLUDE = 2, /* dtype bool */
    ATTN_MASK_BOOL_EXCLUDE = 3  /* dtype bool */
};

/* Options of attn_softmax. All zero after struct_size: the plain softmax. */
typedef struct attn_softmax_params {
    /* sizeof(attn_softmax_params) */
    uint64_t struct_size;

    /* enum attn_mask_kind */
    int32_t mask_kind;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;

    /* broadcastable to input's shape */
    const attn_tensor *mask;

    /* int64 or int32, broadcastable to input's shape without its last axis: positions of the row
     * at or past it are hidden and never read; 0 to S */
    const attn_tensor *lengths;

    /* out: input's shape without its last axis, the score type (float64 where input is float64,
     * else float32): natural logarithm of the sum of exponentials of the visible values; -inf for
     * an empty row */
    const attn_tensor *lse;
} attn_softmax_params;

/*
 * Softmax over the last axis:  output[..., j] = exp(input[..., j] - lse[...]),  lse = log(sum over
 * visible j of exp(input[..., j])), computed with the row's maximum subtracted, so that no finite
 * row overflows; hidden positions get 0.
 *
 * Shapes     input (..., S), rank 1 to 8, of float32, float64, bfloat16 or float16; output the same
 *            shape, of input's dtype or the score type (float64 where input is float64, else
 *            float32), in which the row is computed; a result of 16 bits is rounded once.
 * Layout     any strides. workspace: see attn_softmax_workspace_bytes; NULL makes the library
 *            allocate it for the call. A call without an element to write returns at once and
 *            wants none.
 * Aliasing   output may be exactly input (same data, strides and dtype). Any other overlap of an
 *            output with itself, the other output or an input is an error, and so is that of the
 *            bytes of workspace that are needed with any tensor. What counts as overlap: see
 *            attn_sdpa.
 * Numerics   a weight w is off by at most (m - x + min(S, 512) + 32) u w, where x is its value, m
 *            the largest of its row, u = 2^-24, or 2^-53 for a float64 input: the rounding of x
 *            - m and a few units more; with an additive mask u |x + mask| w is added to that;
 *            so is half a step of output's type where that has 16 bits.
 *            Weights below the smallest normal number may become 0. A visible NaN or +inf makes its
 *            row NaN; a visible -inf weighs 0. Rows do not affect one another.
 * Errors     ATTN_ERROR_NULL input, output, data of either, data of an option; ATTN_ERROR_VALUE
 *            struct_size, mask without kind or kind without mask, a length below 0 or above S;
 *            ATTN_ERROR_SHAPE rank 0, output's or lse's shape, mask or lengths not broadcastable;
 *            ATTN_ERROR_DTYPE; ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW; ATTN_ERROR_WORKSPACE;
 *            ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD; ATTN_ERROR_UNSUPPORTED a dtype, mask kind or
 *            reserved field of a later version, or a newer params struct.
 * Threads    safe while no other thread writes the tensors. One that writes lengths all the same
 *            makes numbers wrong, or the call fail with ATTN_ERROR_VALUE; it does not leave its
 *            tensors' memory for it.
 * Since 0.1. Defined by torch.softmax and, for empty rows, by the safe softmax of torch
 * scaled_dot_product_attention.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_softmax(attn_context *context, const attn_tensor *input,
                                                  const attn_softmax_params *params,
                                                  const attn_tensor *output, void *workspace,
                                                  size_t workspace_bytes);

/*
 * Bytes of workspace that attn_softmax needs for the same arguments, into *bytes. 0 unless output's
 * last axis is strided or its type has 16 bits. Data pointers are not looked at and may be NULL.
 * Errors: as attn_softmax but for data, lengths and the overlap of tensors with each other;
 * ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_softmax_workspace_bytes(attn_context *context,
                                                                  const attn_tensor *input,
                                                                  const attn_softmax_params *params,
                                                                  const attn_tensor *output,
                                                                  size_t *bytes);

ATTN_END_DECLS

#endif
