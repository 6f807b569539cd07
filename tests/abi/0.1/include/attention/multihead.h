/* SPDX-License-Identifier: BSD-3-Clause
 *
 * multihead.h: multi-head attention: projections, attention per head, output projection.
 *
 *     q, k, v     = query Wq^T + bq,  key Wk^T + bk,  value Wv^T + bv
 *     context_h   = attention(q_h, k_h, v_h)            for every head h
 *     attn_output = concat(context_0, context_1, ...) Wo^T + bo
 *
 * By default the layer is torch.nn.MultiheadAttention, parameter names included; the sizes below
 * generalise it, so that the textbook's other formulations are settings of the same layer:
 *   PyTorch's layer      head_dim = value_head_dim = embed_dim / num_heads (the default)
 *   full-width heads     head_dim = value_head_dim = embed_dim: each head projects to full width
 *   one-head attention   num_heads = 1
 *   grouped queries      num_kv_heads < num_heads, as SDPA with enable_gqa
 *
 * Differences from PyTorch 2.13, on purpose: a fully masked row gives weights 0 and context 0, so
 * its output row is out_proj.bias, in every path; is_causal is not a hint: it hides keys j > i by
 * itself and composes with every mask; attn_mask may be 4-D too; a wrongly shaped mask is always an
 * error; results never depend on whether query, key and value are the same tensor; a zeroed kdim or
 * vdim means embed_dim. There is no dropout: this is the layer in evaluation mode.
 */
#ifndef ATTENTION_MULTIHEAD_H
#define ATTENTION_MULTIHEAD_H

#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/sdpa.h>
#include <attention/softmax.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* A layer: sizes and parameters. Opaque; made by attn_mha_create. */
typedef struct attn_mha attn_mha;

/* An option whose default is "on". */
enum attn_switch { ATTN_DEFAULT = 0, ATTN_ON = 1, ATTN_OFF = 2 };

/* What a layer is. All zero but struct_size, embed_dim and num_heads: PyTorch's
 * MultiheadAttention(embed_dim, num_heads). */
typedef struct attn_mha_config {
    /* sizeof(attn_mha_config) */
    uint64_t struct_size;

    /* features of the output; >= 1 */
    int64_t embed_dim;

    /* query heads H; >= 1 */
    int64_t num_heads;

    /* features of key; 0: embed_dim */
    int64_t kdim;

    /* features of value; 0: embed_dim */
    int64_t vdim;

    /* features of query; 0: embed_dim */
    int64_t qdim;

    /* key and value heads Hk, a divisor of num_heads; 0: num_heads */
    int64_t num_kv_heads;

    /* D, features of one query or key head; 0: embed_dim / num_heads, which must divide */
    int64_t head_dim;

    /* Dv, features of one value head; 0: head_dim */
    int64_t value_head_dim;

    /* ATTN_DTYPE_FLOAT32 or ATTN_DTYPE_FLOAT64; 0: float32 */
    int32_t dtype;

    /* enum attn_switch: in_proj_bias and out_proj.bias exist; default on */
    int32_t bias;

    /* 0 or 1: one learned key and value (bias_k, bias_v) after the source keys */
    int32_t add_bias_kv;

    /* 0 or 1: one key and value of zeros after those */
    int32_t add_zero_attn;

    /* 0: (L, N, E) as PyTorch's default; 1: (N, L, E) */
    int32_t batch_first;

    /* must be 0 */
    int32_t reserved;
} attn_mha_config;

/*
 * Makes a layer without parameters. The layer allocates with the context's allocator, now and in
 * every load, and keeps that allocator, not the context, which may be destroyed first; NULL means
 * the C library's allocator. Free the layer with attn_mha_destroy.
 *
 * Errors: ATTN_ERROR_NULL config or layer; ATTN_ERROR_VALUE a size or option out of range,
 * embed_dim not divisible by num_heads where head_dim is 0, num_heads not divisible by
 * num_kv_heads; ATTN_ERROR_DTYPE; ATTN_ERROR_OVERFLOW a parameter's bytes do not fit;
 * ATTN_ERROR_MEMORY; ATTN_ERROR_UNSUPPORTED a newer config struct. On an error *layer is set to
 * NULL if `layer` is not NULL. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_create(attn_context *context,
                                                     const attn_mha_config *config,
                                                     attn_mha **layer);

/* Frees a layer and the parameters it copied; bound ones are the caller's. NULL is allowed. Since
 * 0.1. */
ATTN_API void attn_mha_destroy(attn_mha *layer);

/*
 * Parameters. Their names and shapes are those of PyTorch's state_dict, in its order:
 *
 *   in_proj_weight    (H*D + Hk*D + Hk*Dv, embed_dim)   if packed: rows of query, key, value
 *   q_proj_weight     (H*D, qdim)                       if not packed
 *   k_proj_weight     (Hk*D, kdim)                      if not packed
 *   v_proj_weight     (Hk*Dv, vdim)                     if not packed
 *   in_proj_bias      (H*D + Hk*D + Hk*Dv)              with bias, packed or not
 *   bias_k            (1, 1, Hk*D)                      with add_bias_kv
 *   bias_v            (1, 1, Hk*Dv)                     with add_bias_kv
 *   out_proj.weight   (embed_dim, H*Dv)                 always
 *   out_proj.bias     (embed_dim)                       with bias
 *
 * A layer is packed if qdim = kdim = vdim = embed_dim.
 *
 * For weights stored separately (Hugging Face models) these names are accepted beside the listed
 * ones: q_proj_weight, k_proj_weight, v_proj_weight in a packed layer too, and q_proj_bias (H*D),
 * k_proj_bias (Hk*D), v_proj_bias (Hk*Dv) in any layer with bias.
 *
 * Loading, binding and initialising must not run while another thread uses the layer; all other
 * functions take a const layer and may run at the same time.
 */

/* The number of state_dict parameters of the layer, into *count. Errors: ATTN_ERROR_NULL. Since
 * 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_parameter_count(const attn_mha *layer,
                                                              int64_t *count);

/*
 * Describes state_dict parameter `index`, 0 to count - 1: its name (static memory) into *name, its
 * dtype and shape into *shape, whose strides are those of contiguous memory and whose data is NULL.
 * Either pointer may be NULL. Errors: ATTN_ERROR_NULL layer; ATTN_ERROR_VALUE index. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_parameter_describe(const attn_mha *layer,
                                                                 int64_t index, const char **name,
                                                                 attn_tensor *shape);

/*
 * Copies a parameter into the layer, in the order in which forward reads it fastest, replacing what
 * was loaded or bound under the name. Any strides; float32 and float64 are converted to the layer's
 * dtype.
 *
 * Errors: ATTN_ERROR_NULL; ATTN_ERROR_PARAMETER no parameter of that name in this layer (the detail
 * says which exist); ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE; ATTN_ERROR_OVERFLOW the bytes of values
 * with its strides do not fit, or those of the copy, in which a weight's rows are filled up to a
 * multiple of 16 (float32) or 8 (float64); ATTN_ERROR_MEMORY. The parameter keeps its old value on
 * an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_load_parameter(attn_mha *layer, const char *name,
                                                             const attn_tensor *values);

/*
 * Uses the caller's memory as a parameter, without a copy. It must outlive the layer or the next
 * load or bind of the name; every forward reads it anew, so that changed values count, and puts it
 * in order anew, which a copy saves. Any strides of the layer's dtype. Errors: as
 * attn_mha_load_parameter but for those of the copy. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_bind_parameter(attn_mha *layer, const char *name,
                                                             const attn_tensor *values);

/*
 * Copies a parameter's values out of the layer into `values`, a view of the parameter's shape and
 * the layer's dtype, any strides. Errors: ATTN_ERROR_NULL; ATTN_ERROR_PARAMETER unknown name, or
 * not set yet; ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE; ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW the
 * bytes of values with its strides do not fit. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_read_parameter(const attn_mha *layer,
                                                             const char *name,
                                                             const attn_tensor *values);

/*
 * Gives every parameter fresh values, as PyTorch's constructor does: projections Xavier-uniform(-a,
 * a), a = sqrt(6 / (rows + columns)) of the stored matrix (in_proj_weight counts as one matrix);
 * out_proj.weight uniform(-1/sqrt(c), 1/sqrt(c)), c its columns; biases 0; bias_k and bias_v normal
 * with standard deviation sqrt(2 / (f + f)), f their features. Bound parameters are replaced, not
 * written. The same seed and config give the same values on every machine (bias_k and bias_v to
 * rounding); they are not PyTorch's random numbers. Errors: ATTN_ERROR_NULL; ATTN_ERROR_OVERFLOW a
 * weight's bytes do not fit, its rows filled up as for attn_mha_load_parameter; ATTN_ERROR_MEMORY.
 * The layer keeps its old parameters on an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_init_parameters(attn_mha *layer, uint64_t seed);

/*
 * Options of a forward call. All zero after struct_size: no mask, no weights. Weights are computed
 * when their output is given.
 *
 * PyTorch's mask polarity (true = masked out) is ATTN_MASK_BOOL_EXCLUDE for both masks.
 */
typedef struct attn_mha_params {
    /* sizeof(attn_mha_params) */
    uint64_t struct_size;

    /* enum attn_mask_kind */
    int32_t key_padding_mask_kind;

    /* enum attn_mask_kind */
    int32_t attn_mask_kind;

    /* 1: query i sees source keys j <= i (+ attention->query_offset), and the extra columns */
    int32_t is_causal;

    /* enum attn_switch: attn_weights is the mean over heads; default on */
    int32_t average_attn_weights;

    /* (N, S), unbatched (S). Keys it excludes are also allowed to hold NaN */
    const attn_tensor *key_padding_mask;

    /* (L, S); (N*H, L, S), unbatched (H, L, S); (N or 1, H or 1, L, S) */
    const attn_tensor *attn_mask;

    /* out: (N, L, T), per head (N, H, L, T); unbatched without N; the layer's dtype */
    const attn_tensor *attn_weights;

    /* NULL, or every option of sdpa.h for the attention inside: scale, window, normalizer, lse;
     * its batch axis is (N), or none when unbatched, its heads H. mask, is_causal or
     * weights set in both places is an error */
    const attn_sdpa_params *attention;
} attn_mha_params;

/*
 * Multi-head attention, forward.
 *
 * Arguments  context, params, output, workspace as in attn_sdpa, the workspace's bytes from
 *            attn_mha_workspace_bytes.
 * Shapes     N batch, L queries, S keys, T = S + add_bias_kv + add_zero_attn.
 *                          query          key            value          output
 *            batch_first=0 (L, N, qdim)   (S, N, kdim)   (S, N, vdim)   (L, N, embed_dim)
 *            batch_first=1 (N, L, qdim)   (N, S, kdim)   (N, S, vdim)   (N, L, embed_dim)
 *            unbatched     (L, qdim)      (S, kdim)      (S, vdim)      (L, embed_dim)
 *            attn_weights and attention->lse (N, H, L), unbatched (H, L), are batch-major always.
 *            All of the layer's dtype. Extra columns (bias_kv, then zero) stand after the S source
 *            keys, are visible to every row whatever causality, window, lengths or masks say, and
 *            have no position (no ALiBi); scale and softcap apply. Masks have S columns, returned
 *            weights T.
 * Layout     any strides.
 * Aliasing   an output must not overlap itself, another output, an input or a bound parameter.
 *            query, key and value may be one tensor.
 * Numerics   each element of a projection is one sum in the layer's dtype, from the bias on in the
 *            order of the features, so that its bits depend on nothing but its row, the parameters
 *            and the kernels: not on threads, other rows, or whether parameters are copied or
 *            bound. Attention is attn_sdpa's. BLAS takes part in the attention of float64 only, and
 *            where the context asks for ATTN_GEMM_BLAS. Padded key and value rows may hold
 *            anything, NaN included: they never reach an output. Empty rows give out_proj.bias.
 * Errors     as attn_sdpa, and ATTN_ERROR_PARAMETER, naming it, if a parameter has not been set.
 * Threads    any number of calls on one layer and one context at once.
 * Since 0.1. Defined by torch.nn.MultiheadAttention (2.13) in evaluation mode; differences: see the
 * top of this file.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_mha_forward(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                 const attn_tensor *key, const attn_tensor *value, const attn_mha_params *params,
                 const attn_tensor *output, void *workspace, size_t workspace_bytes);

/*
 * Bytes of workspace attn_mha_forward needs for the same arguments, into *bytes; see
 * attn_sdpa_workspace_bytes. Parameters need not be set, but binding one later, or with other
 * strides, may change the result. Errors: as attn_mha_forward but for data, key lengths and
 * parameters; ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_mha_workspace_bytes(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                         const attn_tensor *key, const attn_tensor *value,
                         const attn_mha_params *params, const attn_tensor *output, size_t *bytes);

ATTN_END_DECLS

#endif
