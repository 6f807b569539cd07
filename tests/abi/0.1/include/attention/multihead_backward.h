/* SPDX-License-Identifier: BSD-3-Clause
 *
 * multihead_backward.h: the gradients of a multi-head attention layer.
 *
 * With dY the gradient of attn_output and everything else as multihead.h has it, rows of all
 * sequences one below the other:
 *
 *     dWo = dY^T concat(context)       dbo = sum of dY's rows       dcontext = dY Wo
 *     dq, dk, dv, and those of bias_k, bias_v, masks ...: as backward.h has them, head by head
 *     dq, dk through rope              turned back by the same angles
 *     dq, dk through qk_norm           x^ = x / rms(x) and g = dq (weight + offset), over a row:
 *                                      (g - x^ mean(g x^)) / rms(x);  dweight = sum of dq x^
 *     dWq = dq^T query                 dbq = sum of dq's rows       dquery = dq Wq
 *     and so for key and value
 *
 * A training step is
 *
 *     attn_mha_saved_bytes(context, layer, query, key, value, &params, &bytes);   once
 *     params.saved = ...; params.saved_bytes = bytes;
 *     attn_mha_forward(context, layer, query, key, value, &params, output, ...);
 *     attn_mha_backward(context, layer, query, key, value, &params, &gradients, ...);
 *
 * after which the caller changes the parameters, those that are bound in place. The layer keeps
 * nothing of a call, so that many may be under way: each has its own `saved`.
 */
#ifndef ATTENTION_MULTIHEAD_BACKWARD_H
#define ATTENTION_MULTIHEAD_BACKWARD_H

#include <stddef.h>
#include <stdint.h>

#include <attention/backward.h>
#include <attention/context.h>
#include <attention/export.h>
#include <attention/multihead.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/*
 * Gradients of one call of a layer: those that are given, and those that are wanted. Grows at its
 * end only; pass by pointer only.
 *
 * A gradient that is wanted has the shape of what it is of, any strides, and its dtype (that of a
 * parameter: the layer's parameter_dtype) or the score type.
 */
typedef struct attn_mha_gradients {
    /* sizeof(attn_mha_gradients) */
    uint64_t struct_size;

    /* 0 or 1: what is wanted, that of attention included, is added to what the tensors hold, in
     * the score type, and rounded once: parts of a batch */
    int32_t accumulate;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;

    /* in, of output: its shape, any strides; the layer's dtype or the score type */
    const attn_tensor *output;

    /* out, or NULL: not wanted. Where query, key and value are one tensor, its gradient is the sum
     * of these three, which the caller adds: they may not overlap, with accumulate neither */
    const attn_tensor *query;

    /* likewise */
    const attn_tensor *key;

    /* likewise */
    const attn_tensor *value;

    /* out, or NULL: none is wanted. An array of num_parameters tensors in the order and the shapes
     * of attn_mha_parameter_describe, however the parameters were loaded or bound; one whose data is
     * NULL is not wanted */
    const attn_tensor *parameters;

    /* 0 without parameters, else attn_mha_parameter_count */
    int64_t num_parameters;

    /*
     * NULL, or what is given and wanted of the options and further results of
     * attn_mha_params.attention, in the struct of the same call without a layer, so that each has
     * one name and one meaning: in, of lse and of the returned weights; out, of mask, bias,
     * position_bias, alibi_slopes and sinks, in the shapes that these have in the layer's call. Its
     * output, query, key and value are NULL and its accumulate is 0: those above count.
     */
    const attn_sdpa_gradients *attention;
} attn_mha_gradients;

/*
 * Bytes of attn_mha_params.saved for these inputs and options, into *bytes: what is projected, the
 * heads' contexts and their lse, in the score type. They depend on shapes and options, on the
 * context and on nothing else, and may change between versions. Data pointers are not looked at,
 * nor are params.saved and saved_bytes; parameters need not be set. Errors: as
 * attn_mha_describe_outputs; ATTN_ERROR_NULL bytes; ATTN_ERROR_UNSUPPORTED params.cache, and a
 * layer with weights of int8; for a NULL context those of making the default one. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_saved_bytes(
    attn_context *context, const attn_mha *layer, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_mha_params *params, size_t *bytes);

/*
 * The gradients of a call of attn_mha_forward.
 *
 * Arguments  context, layer, query, key, value, params: those of the forward call, with the same
 *            parameters; a context with other settings will do. params.saved is what that call
 *            wrote and is only read, so that several calls may want one gradient each.
 *            params.attention's lse, weights, scores and report are ignored: lse is among what was
 *            saved. gradients: see above. workspace NULL: the call makes one allocation; else at
 *            least attn_mha_backward_workspace_bytes bytes at any alignment. With N or L = 0 what
 *            is wanted is 0, or what it was.
 * Shapes     as attn_mha_forward.
 * Layout     any strides, negative and (what is only read) zero ones too.
 * Aliasing   a gradient that is wanted must not overlap itself, another one, or anything that is
 *            read, saved included, nor the workspace any of them, by the rules of attn_sdpa. query,
 *            key and value may be one tensor; their gradients may not.
 * Numerics   everything between what is given and what is wanted has the score type; a gradient of
 *            16 bits is rounded once, at the end. With accumulate one is summed first and then
 *            added to what is there: one rounding more, however large that is. The gradients of
 *            inputs are sums over features as projections are. Those of parameters are sums over
 *            the rows of all sequences, in the order in which they lie in memory, one rounding a
 *            term; those of norms are summed in float64. The attention's are those of
 *            attn_sdpa_backward, with its bounds.
 * Hidden     key and value rows that key_padding_mask excludes and those that no query sees by
 *            causality, window, length or mask_start have gradients of 0 and are in no other,
 *            whatever they hold, NaN included; so are queries that see nothing. A row's part in the
 *            gradient of a weight is left out where the row of the projection's gradient is 0
 *            throughout.
 * Bits       the same for any number of threads and from call to call; BLAS takes part where the
 *            context asks for ATTN_GEMM_BLAS, in the products with weights and of weights.
 * Errors     as attn_mha_forward and attn_sdpa_backward, gradients of the attention inside as
 *            "gradients.attention.<field>", those of a parameter by "gradients.<its name>";
 *            ATTN_ERROR_NULL gradients, gradients.output, params.saved, parameters beside
 *            num_parameters; ATTN_ERROR_VALUE saved that is not aligned, num_parameters, a field of
 *            attention that is to be NULL or 0, a gradient of what the call does not have;
 *            ATTN_ERROR_WORKSPACE saved_bytes; ATTN_ERROR_PARAMETER; ATTN_ERROR_DTYPE;
 *            ATTN_ERROR_SHAPE; ATTN_ERROR_OVERLAP; ATTN_ERROR_UNSUPPORTED params.cache: there are
 *            no gradients through a cache; a layer with weights of int8; a field or value of a later
 *            version. What is wanted is untouched after an error, but for ATTN_ERROR_THREAD of a
 *            parallel_for that refused.
 * Threads    any number of calls on one layer, one `saved` and one context at once.
 * Since 0.1. Defined by the gradients of torch.nn.MultiheadAttention (2.13); differences: see
 * multihead.h.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_mha_backward(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                  const attn_tensor *key, const attn_tensor *value, const attn_mha_params *params,
                  const attn_mha_gradients *gradients, void *workspace, size_t workspace_bytes);

/*
 * Bytes of workspace attn_mha_backward needs for the same arguments, into *bytes; see
 * attn_mha_workspace_bytes. Data pointers are not looked at, params.saved included: every parameter
 * whose dtype is not 0 counts as wanted, so that the result suffices for any of them. Errors: as
 * attn_mha_backward but for data, key lengths, parameters, saved and the overlap of tensors;
 * ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_backward_workspace_bytes(
    attn_context *context, const attn_mha *layer, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_mha_params *params, const attn_mha_gradients *gradients,
    size_t *bytes);

ATTN_END_DECLS

#endif
