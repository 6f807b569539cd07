/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward.h: the gradients of scaled dot-product attention.
 *
 * With P the weights, S what the normalizer gets, dO the gradient of output and everything else as
 * sdpa.h has it:
 *
 *     dV = P^T dO          dP = dO V^T (+ the gradient of returned weights)
 *     softmax   dS = P (dP - rowsum(P dP) + the gradient of lse)
 *     sigmoid   dS = P (1 - P) dP
 *     linear    dS = dP
 *     dmask, dbias = dS, dposition_bias = dS by distance, dslope = -sum of dS |p(i) - j|
 *     softcap   dS is multiplied with 1 - (capped / softcap)^2 from here on
 *     dQ = scale dS K      dK = scale dS^T Q
 *     dsink = -sum over the rows of exp(sink - lse) (rowsum(P dP) - the gradient of lse)
 *
 * Nothing of size L x S is kept: scores are computed again, block by block, from lse. (Dao et al.,
 * 2022, appendix B.4; torch's _scaled_dot_product_flash_attention_for_cpu_backward.)
 */
#ifndef ATTENTION_BACKWARD_H
#define ATTENTION_BACKWARD_H

#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/sdpa.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/*
 * Gradients of one call: those that are given, and those that are wanted. Grows at its end only;
 * pass by pointer only.
 *
 * A gradient that is wanted has its input's shape, and its dtype or the score type. Where the input
 * repeats (broadcast batches, heads that share a key, one row of a mask for all) it is the sum.
 */
typedef struct attn_sdpa_gradients {
    /* sizeof(attn_sdpa_gradients) */
    uint64_t struct_size;

    /* 0 or 1: what is wanted is added to what the tensors hold, in the score type, and rounded
     * once: parts of a batch, or of a sequence whose keys come in turns */
    int32_t accumulate;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;

    /* in, of output: its shape, any strides; query's dtype or the score type */
    const attn_tensor *output;

    /* in, of lse, its shape, the score type; NULL: 0. Softmax only */
    const attn_tensor *lse;

    /* in, of the weights that the call returned, of one matrix per head or of their mean, in the
     * shapes of attn_sdpa_params.weights; query's dtype or the score type; NULL: 0. Weights that no
     * row sees have none */
    const attn_tensor *weights;

    /* out, or NULL: not wanted. Of key and value also where they lie in params.kv, one sequence
     * behind the other or with room for each, in the shape they have there */
    const attn_tensor *query;

    /* likewise */
    const attn_tensor *key;

    /* likewise */
    const attn_tensor *value;

    /* likewise of additive options: 0 where the mask is -inf, or is not asked by block_mask */
    const attn_tensor *mask;

    /* likewise */
    const attn_tensor *bias;

    /* likewise, summed over all pairs of a distance */
    const attn_tensor *position_bias;

    /* likewise, one of each head's slope */
    const attn_tensor *alibi_slopes;

    /* likewise, one of each head's sink */
    const attn_tensor *sinks;
} attn_sdpa_gradients;

/*
 * The gradients of a call of attn_sdpa.
 *
 * Arguments  context, query, key, value, params: those of the forward call. params.lse, which
 *            softmax needs, and output are what that call wrote; both are only read, so that a part
 *            of the keys may be given the lse and output of all. params.weights, scores and report
 *            are ignored. gradients: see above. workspace NULL: the call makes one allocation; else
 *            at least attn_sdpa_backward_workspace_bytes bytes at any alignment.
 * Shapes     as attn_sdpa. Rows of no sequence (query_starts, kv.starts) are neither read nor
 *            written.
 * Layout     any strides, negative and (what is only read, output and lse included) zero ones too.
 * Aliasing   a gradient that is wanted must not overlap itself, another one, or anything that is
 *            read, nor the workspace any tensor, by the rules of attn_sdpa.
 * Numerics   computes in the score type; a gradient of 16 bits is rounded once, at the end, so that
 *            its error does not grow with the lengths. With w, v, u, d, m and T as in attn_sdpa, r
 *            = sum |dO v| the largest over a row, every element of dS is off by at most w (2 (2 d +
 *            (T + 16 + m) u) r + (Ev + 4) u r); dK, dV and the sums over repeats add one rounding
 *            for each row that sees the key, dQ one for each key. Weights are those of lse: one
 *            that was rounded or is of more keys changes them accordingly.
 * Hidden     where a row does not see a key by causality, window, length or mask_start, neither
 *            enters the other's gradient, whatever they hold, and keys that no row of their batch
 *            sees are not read and have gradients of 0; so has a row that sees nothing. A NaN or
 *            infinity that is hidden by a dense mask or bias alone may become NaN, as in attn_sdpa;
 *            one that is seen does.
 * Bits       the same for any number of threads, from call to call, and for a sequence in a batch
 *            of any size: sums over rows and keys are in their order, one rounding a term, sums
 *            over batches and heads that share an input likewise. BLAS takes no part.
 * Errors     as attn_sdpa; ATTN_ERROR_NULL gradients, gradients.output, lse of softmax, data;
 *            ATTN_ERROR_VALUE a gradient of what the call does not have (a mask, sinks ...), or of
 *            lse without softmax; ATTN_ERROR_DTYPE a gradient of a bool mask or of quantised keys
 *            or values, or one of another type; ATTN_ERROR_SHAPE; ATTN_ERROR_OVERLAP;
 *            ATTN_ERROR_UNSUPPORTED gradients of keys or values in pages, which sequences may
 *            share; a field or value of a later version. What is wanted is untouched after an
 *            error, but for ATTN_ERROR_THREAD of a parallel_for that refused.
 * Threads    any number of calls at once, on one context too, as attn_sdpa.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_sdpa_backward(
    attn_context *context, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_tensor *output,
    const attn_sdpa_gradients *gradients, void *workspace, size_t workspace_bytes);

/*
 * Bytes of workspace attn_sdpa_backward needs for the same context and arguments, into *bytes. They
 * depend on shapes, strides, options and the context, never on values, and may change between
 * versions. Data pointers are not looked at and may be NULL. Errors: as attn_sdpa_backward but for
 * data, key lengths and the overlap of tensors; ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_sdpa_backward_workspace_bytes(
    attn_context *context, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_tensor *output,
    const attn_sdpa_gradients *gradients, size_t *bytes);

/*
 * What attn_sdpa_backward would run and why, for people to read. The caller sets struct_size;
 * fields this version does not know become 0; strings are static memory.
 */
typedef struct attn_sdpa_backward_report {
    /* in: sizeof(attn_sdpa_backward_report) */
    uint64_t struct_size;

    /* 1: an item walks all keys of a head; 0: threads work on one head together, a block of keys
     * each, and hand a block of rows from one to the next, which changes no bit */
    int32_t whole_heads;

    /* how many gradients are summed apart before they are written: because they are rounded, or
     * because what they belong to repeats */
    int32_t staged;

    /* items of the gradients of query, key and value; 0 where none is wanted */
    int64_t num_items;

    /* rows of a block */
    int64_t row_block;

    /* keys of a block */
    int64_t key_block;

    /* as attn_sdpa_backward_workspace_bytes */
    uint64_t workspace_bytes;

    /* name of the kernels */
    const char *kernels;

    /* one sentence: why this schedule */
    const char *reason;
} attn_sdpa_backward_report;

/*
 * Fills *report with what attn_sdpa_backward would run for the same context and arguments, without
 * running it. Data pointers are not looked at. Errors: as attn_sdpa_backward_workspace_bytes;
 * ATTN_ERROR_NULL report; ATTN_ERROR_VALUE report->struct_size. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_sdpa_backward_explain(
    attn_context *context, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_tensor *output,
    const attn_sdpa_gradients *gradients, attn_sdpa_backward_report *report);

ATTN_END_DECLS

#endif
