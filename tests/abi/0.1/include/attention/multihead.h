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
 * A decoder's attention is one call of such a layer, the prompt's and each token's: with params.rope
 * queries and keys are rotated, with config.qk_norm normalised before that, and with params.cache
 * the new keys and values are appended to those of earlier calls. See attn_mha_params.
 *
 * Differences from PyTorch 2.13, on purpose: a fully masked row gives weights 0 and context 0, so
 * its output row is out_proj.bias, in every path; is_causal is not a hint: it hides keys j > i by
 * itself and composes with every mask; the mask may be 4-D too; a wrongly shaped mask is always an
 * error; results never depend on whether query, key and value are the same tensor; a zeroed kdim or
 * vdim means embed_dim; weights are returned if asked for, and averaged over the heads or not by
 * the shape they are given. This is the layer in evaluation mode, unless attention.dropout says
 * which weights to drop.
 */
#ifndef ATTENTION_MULTIHEAD_H
#define ATTENTION_MULTIHEAD_H

#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/kv.h>
#include <attention/rope.h>
#include <attention/sdpa.h>
#include <attention/softmax.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* A layer: sizes and parameters. Opaque; made by attn_mha_create. */
typedef struct attn_mha attn_mha;

/* What is normalised of queries and keys once they are projected, as attn_rms_norm does it. */
enum attn_qk_norm {
    ATTN_QK_NORM_NONE = 0,

    /* the D features of each head; all heads have one weight: Qwen 3, Gemma 3 */
    ATTN_QK_NORM_HEAD = 1,

    /* the features of all heads together: OLMo 2 */
    ATTN_QK_NORM_ALL_HEADS = 2
};

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

    /* of query, key, value and output: ATTN_DTYPE_FLOAT32, FLOAT64, BFLOAT16 or FLOAT16; 0:
     * float32 */
    int32_t dtype;

    /* 0 or 1: without in_proj_bias and out_proj.bias, PyTorch's bias=False */
    int32_t no_bias;

    /* 0 or 1: one learned key and value (bias_k, bias_v) after the source keys */
    int32_t add_bias_kv;

    /* 0 or 1: one key and value of zeros after those */
    int32_t add_zero_attn;

    /* 0: (L, N, E) as PyTorch's default; 1: (N, L, E) */
    int32_t batch_first;

    /* of the parameters the layer keeps; 0: dtype. Beside dtype float64: float64; else float32,
     * ATTN_DTYPE_BFLOAT16, FLOAT16 or INT8, whatever dtype is: computing is float32's, and fewer
     * bytes are read. INT8 is of the weights of projections, each of whose rows has a scale (see
     * attn_mha_load_parameter); the other parameters are float32 then */
    int32_t parameter_dtype;

    /* enum attn_qk_norm */
    int32_t qk_norm;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;

    /* of qk_norm, as attn_rms_norm_params.epsilon: > 0 and finite; 0: the default of attn_rms_norm;
     * 0 without qk_norm */
    double qk_norm_epsilon;

    /* of qk_norm, as attn_rms_norm_params.weight_offset: finite, 1 for Gemma's weights; 0 without
     * qk_norm */
    double qk_norm_weight_offset;
} attn_mha_config;

/*
 * Makes a layer without parameters. The layer allocates with the context's allocator, now and in
 * every load, and keeps that allocator, not the context, which may be destroyed first; NULL means
 * the C library's allocator. Free the layer with attn_mha_destroy.
 *
 * Errors: ATTN_ERROR_NULL config or layer; ATTN_ERROR_VALUE a size or option out of range,
 * embed_dim not divisible by num_heads where head_dim is 0, num_heads not divisible by
 * num_kv_heads; ATTN_ERROR_DTYPE dtype, or parameter_dtype beside it;
 * ATTN_ERROR_OVERFLOW a parameter's bytes do not fit; ATTN_ERROR_MEMORY; ATTN_ERROR_UNSUPPORTED a
 * dtype of a later version, or a newer config struct. On an error *layer is set to NULL if `layer`
 * is not NULL. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_create(attn_context *context,
                                                     const attn_mha_config *config,
                                                     attn_mha **layer);

/*
 * Fills *config with what the layer is: a config that makes the same layer, in which sizes that
 * were 0 have the value that they stood for. The caller sets config->struct_size; fields this
 * version does not know become 0. Errors: ATTN_ERROR_NULL; ATTN_ERROR_VALUE config->struct_size.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_describe(const attn_mha *layer,
                                                       attn_mha_config *config);

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
 *   q_norm.weight     (D), or (H*D)                     with qk_norm of a head, or of all heads
 *   k_norm.weight     (D), or (Hk*D)                    likewise
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
 * A weight that is kept as int8 is described as float32, which attn_mha_read_parameter makes of it.
 * Either pointer may be NULL. Errors: ATTN_ERROR_NULL layer; ATTN_ERROR_VALUE index. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_parameter_describe(const attn_mha *layer,
                                                                 int64_t index, const char **name,
                                                                 attn_tensor *shape);

/* Options of attn_mha_load_parameter. All zero after struct_size: none. Grows at its end only. */
typedef struct attn_mha_load_params {
    /* sizeof(attn_mha_load_params) */
    uint64_t struct_size;

    /* the scales of values that are int8, of any floating-point dtype and any strides: one for each
     * row of the parameter, (rows) or (rows, 1); NULL beside other values */
    const attn_tensor *scale;
} attn_mha_load_params;

/*
 * Copies a parameter into the layer, in the order in which forward reads it fastest, replacing what
 * was loaded or bound under the name. Any strides; every floating-point dtype is converted to the
 * layer's parameter_dtype, rounded once. context NULL: the default one; params NULL: no options.
 *
 * A weight with parameter_dtype ATTN_DTYPE_INT8 is kept as integers of -127 to 127 and a float32
 * scale for each of its rows, which are the features that a projection writes:
 *
 *     scale = max |w| / 127, rounded up       w = scale * nearest integer to w / scale, ties to even
 *
 * over the row's w as float32, so that a weight is off by half its row's scale at most: by 1/254 of
 * the row's largest, beside the rounding of a float32. A row of zeroes has scale 0; a row with an
 * infinity or a NaN has scale NaN, and so is what it projects to. Values that are int8 already,
 * -128 to 127, are kept as they are, with the scales in params->scale.
 *
 * Errors: ATTN_ERROR_NULL, also of int8 values without params->scale; ATTN_ERROR_PARAMETER no
 * parameter of that name in this layer (the detail says which exist), or the name of scales, which
 * can only be read; ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE, also of int8 values for what is not kept as
 * int8; ATTN_ERROR_OVERFLOW the bytes of values with its strides do not fit, or those of the copy,
 * in which a weight's rows are filled up to a multiple of 16, or 8 of float64; ATTN_ERROR_MEMORY;
 * ATTN_ERROR_VALUE params->struct_size, params->scale beside values that are not int8;
 * ATTN_ERROR_UNSUPPORTED a dtype of a later version, or a newer params struct; for a NULL context
 * those of making the default one. The parameter keeps its old value on an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_load_parameter(attn_context *context, attn_mha *layer,
                                                             const char *name,
                                                             const attn_tensor *values,
                                                             const attn_mha_load_params *params);

/*
 * Uses the caller's memory as a parameter, without a copy. It must outlive the layer or the next
 * load or bind of the name; every forward reads it anew, so that changed values count, and puts it
 * in order anew, which a copy saves. Any strides; the dtype that attn_mha_parameter_describe says.
 * Errors: as attn_mha_load_parameter but for those of the copy; ATTN_ERROR_UNSUPPORTED also a weight
 * that the layer keeps as int8, which can only be loaded. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_bind_parameter(attn_mha *layer, const char *name,
                                                             const attn_tensor *values);

/*
 * Copies a parameter's values out of the layer into `values`, a view of the parameter's shape and
 * of the dtype that attn_mha_parameter_describe says, any strides. A weight that is kept as int8 is
 * read as float32, scale times integer, rounded once, or into ATTN_DTYPE_INT8 as it is kept, and its
 * scales by its name and ".scale" (in_proj_weight.scale; float32 of one axis, the weight's rows).
 * context NULL: the default one. Errors: ATTN_ERROR_NULL;
 * ATTN_ERROR_PARAMETER unknown name, or not set yet; ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE;
 * ATTN_ERROR_UNSUPPORTED a dtype of a later version; ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW the
 * bytes of values with its strides do not fit; for a NULL context those of making the default one.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_read_parameter(attn_context *context,
                                                             const attn_mha *layer,
                                                             const char *name,
                                                             const attn_tensor *values);

/* Options of attn_mha_init_parameters. */
typedef struct attn_mha_init_params {
    /* sizeof(attn_mha_init_params) */
    uint64_t struct_size;

    /* which of the sequences of random numbers */
    uint64_t seed;
} attn_mha_init_params;

/*
 * Gives every parameter fresh values, as PyTorch's constructor does: projections Xavier-uniform(-a,
 * a), a = sqrt(6 / (rows + columns)) of the stored matrix (in_proj_weight counts as one matrix);
 * out_proj.weight uniform(-1/sqrt(c), 1/sqrt(c)), c its columns; biases 0; bias_k and bias_v normal
 * with standard deviation sqrt(2 / (f + f)), f their features; weights of norms 1, less their
 * offset. Bound parameters are replaced, not
 * written. The same seed and config give the same values on every machine (bias_k and bias_v to
 * rounding); they are not PyTorch's random numbers. context NULL: the default one; params NULL:
 * seed 0. Errors: ATTN_ERROR_NULL layer; ATTN_ERROR_OVERFLOW a weight's bytes do not fit, its rows
 * filled up as for attn_mha_load_parameter; ATTN_ERROR_MEMORY; ATTN_ERROR_VALUE
 * params->struct_size; ATTN_ERROR_UNSUPPORTED a newer params struct; for a NULL context those of
 * making the default one. The layer keeps its old parameters on an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_init_parameters(attn_context *context,
                                                              attn_mha *layer,
                                                              const attn_mha_init_params *params);

/*
 * Options of a forward call. All zero after struct_size: no mask, no weights.
 *
 * The key padding mask is the layer's own; every other option is one of the attention inside, and
 * attn_sdpa_params says what it means. PyTorch's mask polarity (true = masked out) is
 * ATTN_MASK_BOOL_EXCLUDE for both masks.
 */
typedef struct attn_mha_params {
    /* sizeof(attn_mha_params) */
    uint64_t struct_size;

    /* enum attn_mask_kind */
    int32_t key_padding_mask_kind;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;

    /* (N, S), unbatched (S). Keys it excludes are also allowed to hold NaN; one that the mask below
     * alone excludes is as in attn_sdpa */
    const attn_tensor *key_padding_mask;

    /*
     * NULL, or every option of sdpa.h for the attention inside. Its batch axis is (N), or none when
     * unbatched, its heads are H:
     *   mask        (L, S); (N*H, L, S) as in PyTorch, unbatched (H, L, S); (N or 1, H or 1, L, S).
     *               (H, L, S) for all batches is written (1, H, L, S). With mask_start, which is
     *               (N) or one number, any number of columns in the place of S
     *   bias        broadcastable to (N, H, L, S), unbatched (H, L, S)
     *   lse         (N, H, L), unbatched (H, L)
     *   weights     per head (N, H, L, T), averaged over the heads (N, L, T); unbatched without N
     *   scores      (N, H, L, T), unbatched (H, L, T)
     *   enable_gqa  0 or 1, without effect: the layer's num_kv_heads says it
     *   kv          NULL (else ATTN_ERROR_VALUE): a layer has cache for it
     *   query_starts  NULL, or with cache (B + 1): query, key, value and output are the rows of B
     *               sequences, one behind the other. See Ragged rows below
     *   report      of the attention alone; attn_mha_explain tells of the layer
     * With cache key_lengths is NULL, too (else ATTN_ERROR_VALUE), S is the cache's, and the last
     * query stands at the last key of its sequence, as with align_end, unless query_offset says
     * otherwise: so is_causal, window and ALiBi mean the same in a prompt's call as token by token.
     */
    const attn_sdpa_params *attention;

    /*
     * NULL: attended over are the S rows of key and value. Else (kv.h says how it may lie, with N
     * sequences, or no batch axis when unbatched; Hk heads of D and Dv features): the n rows of key
     * and value are new ones of each sequence. They are projected, normalised and rotated, and
     * stored at the end of its rows in use as by attn_kv_append, converted or quantised; then all
     * its rows in use are attended over, and S is what attn_sdpa takes for it: C rows, or, where
     * sequences have no one number of them, the columns of weights, scores, mask or bias, else of
     * key_padding_mask. lengths, which count the new rows already, are required.
     *
     * With key and value NULL nothing is projected or stored but the queries are: the cache is read
     * as it is, such as an encoder's keys in a decoder; k and v parameters need not be set. key and
     * value of the cache may then have N = 1. A first call may fill it, also one with L = 0.
     *
     * Ragged rows. With attention.query_starts query is (total, qdim), key and value, if there are
     * any, (total, kdim) and (total, vdim), output (total, embed_dim), whatever batch_first is:
     * rows query_starts[b] to query_starts[b + 1] - 1 of all of them are those of sequence b, of
     * which the cache has B. So prompts of different lengths and tokens go through one call. The
     * options inside lie as sdpa.h says of ragged queries, with total in the place of L and no N:
     * mask (total, S), (H, total, S) or (1, H or 1, total, S), lse (H, total), weights (H, total,
     * T) or averaged (total, T); key_padding_mask is (B, S), rope's positions (total), its lengths
     * (B). Each sequence has the bits of a call of its own. Rows of no sequence are not stored, and
     * see nothing: their output is out_proj.bias; lse, weights and scores are not written there.
     *
     * Extra columns (bias_kv, then zero) are no rows of the cache: they are computed in each call,
     * neither rotated nor stored. key_padding_mask is (N, S), column j being row j of the sequence;
     * a new row that it excludes is stored as zeroes. Rows that were there before it hides only as
     * a mask does.
     */
    const attn_kv *cache;

    /*
     * NULL: no rotation. Else projected queries and keys are rotated as attn_rope does it, after
     * qk_norm; rows are query's, then key's, and positions, or cos and sin by row, must broadcast
     * to both. Without positions and lengths: lengths are the cache's, if there is one, so that new
     * rows stand where they are stored, and queries at the end; else positions are 0, 1, ...
     */
    const attn_rope_params *rope;

    /*
     * NULL, or where forward leaves what attn_mha_backward needs of it, which reads it: memory of
     * the caller's, aligned to 8 bytes (to 64 is fastest), that no tensor of the call overlaps.
     * What forward returns has the same bits with it as without. NULL beside cache, and in a layer
     * with weights of int8: ATTN_ERROR_UNSUPPORTED.
     */
    void *saved;

    /* of saved: at least attn_mha_saved_bytes */
    uint64_t saved_bytes;
} attn_mha_params;

/*
 * Multi-head attention, forward.
 *
 * Arguments  context, params, output, workspace as in attn_sdpa, the workspace's bytes from
 *            attn_mha_workspace_bytes. With N or L = 0 there is nothing to write, and keys and
 *            values are not projected, but to be stored in a cache.
 * Shapes     N batch, L queries, S keys, T = S + add_bias_kv + add_zero_attn. With cache key and
 *            value have n rows in the place of S, or are NULL.
 *                          query          key            value          output
 *            batch_first=0 (L, N, qdim)   (S, N, kdim)   (S, N, vdim)   (L, N, embed_dim)
 *            batch_first=1 (N, L, qdim)   (N, S, kdim)   (N, S, vdim)   (N, L, embed_dim)
 *            unbatched     (L, qdim)      (S, kdim)      (S, vdim)      (L, embed_dim)
 *            ragged        (total, qdim)  (total, kdim)  (total, vdim)  (total, embed_dim)
 *            weights, scores and lse are batch-major always. query, key and value of the layer's
 *            dtype; output and weights, and options that accompany scores, of it or the score type
 *            (float64 of a float64 layer, else float32). Extra columns (bias_kv, then zero) stand
 *            after the S source keys, are visible to every row whatever causality, window, lengths
 *            or masks say, and have no position (no ALiBi, no position_bias); scale and softcap
 *            apply. Masks and bias have S columns, returned weights and scores T. A key that
 *            key_padding_mask excludes is a vector of zeros to scores before the mask.
 * Layout     any strides.
 * Aliasing   an output must not overlap itself, another output, an input or a parameter, nor may
 *            the bytes of workspace that are needed overlap any of them; what counts as overlap:
 *            see attn_sdpa. query, key and value may be one tensor. Where new rows are stored, what
 *            attn_kv_append writes of cache is an output.
 * Numerics   everything between the inputs and the outputs has the score type: numbers of 16 bits
 *            mean what they hold, and an output of 16 bits is rounded once, at the end.
 *            Each element of a projection is one sum in the score type, from the bias on in the
 *            order of the features, so that its bits depend on nothing but its row, the parameters
 *            and the kernels: not on threads, other rows, or whether parameters are copied or
 *            bound. Of an int8 weight the sum is that of features times integers, from 0 on, which
 *            must be within float32; scale and bias follow. Attention is attn_sdpa's. BLAS takes part in the attention of float64 only, and
 *            where the context asks for ATTN_GEMM_BLAS. Padded key and value rows may hold
 *            anything, NaN included: they never reach an output. Empty rows give out_proj.bias.
 * Bits       a sequence's are its own, as in attn_sdpa: the same alone and in any batch. What is
 *            between the projections has those of attn_rms_norm, attn_rope, attn_kv_append and
 *            attn_sdpa, in this order, of tensors of the score type.
 * Errors     as attn_sdpa, options of the attention inside as "attention.<option>", and
 *            ATTN_ERROR_PARAMETER, naming it, if a parameter has not been set. With cache those of
 *            attn_kv_append, as "cache.<field>"; ATTN_ERROR_NULL cache.lengths, or one of key and
 *            value alone; with rope those of attn_rope, as "rope.<option>", and ATTN_ERROR_VALUE a
 *            head_dim that is odd where all of it is rotated. All are found before anything is
 *            written, in the cache either, but for ATTN_ERROR_THREAD of a parallel_for that refused.
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
 * strides, may change the result. Errors: as attn_mha_forward but for data, key lengths, parameters
 * and the overlap of tensors with each other; ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_mha_workspace_bytes(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                         const attn_tensor *key, const attn_tensor *value,
                         const attn_mha_params *params, const attn_tensor *output, size_t *bytes);

/*
 * What a forward call of a layer runs and why, for people to read. The caller sets struct_size and
 * may set attention; fields this version does not know become 0; strings are static memory.
 */
typedef struct attn_mha_report {
    /* in: sizeof(attn_mha_report) */
    uint64_t struct_size;

    /* ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE: who computes the projections */
    int32_t projection_gemm;

    /* 1: the last bits may differ with the number of threads BLAS uses, in projections or attention
     */
    int32_t depends_on_blas_threads;

    /* as attn_mha_workspace_bytes */
    uint64_t workspace_bytes;

    /* name of the kernels */
    const char *kernels;

    /* in: NULL, or a report of the attention inside, to be filled too */
    attn_sdpa_report *attention;
} attn_mha_report;

/*
 * Fills *report with what attn_mha_forward would run for the same context and arguments, without
 * running it. Data pointers are not looked at, parameters need not be set. Errors: as
 * attn_mha_workspace_bytes; ATTN_ERROR_NULL report; ATTN_ERROR_VALUE a struct_size of the two. Both
 * reports are untouched after an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_mha_explain(attn_context *context, const attn_mha *layer, const attn_tensor *query,
                 const attn_tensor *key, const attn_tensor *value, const attn_mha_params *params,
                 const attn_tensor *output, attn_mha_report *report);

/* The outputs that belong to a forward call's inputs: as attn_sdpa_outputs. */
typedef struct attn_mha_outputs {
    /* in: sizeof(attn_mha_outputs) */
    uint64_t struct_size;

    /* (L, N, embed_dim), (N, L, embed_dim) or (L, embed_dim) */
    attn_tensor output;

    /* of attention->lse; all zero where the normalizer has none */
    attn_tensor lse;

    /* of attention->weights, one matrix per head */
    attn_tensor weights;

    /* of attention->weights, their mean over the heads */
    attn_tensor averaged_weights;

    /* of attention->scores */
    attn_tensor scores;
} attn_mha_outputs;

/*
 * Fills *outputs for these inputs and options. Data pointers are not looked at, nor are the
 * attention's lse, weights, scores and report. Allocates nothing; any thread. Errors: as
 * attn_mha_workspace_bytes; ATTN_ERROR_OVERFLOW an output's bytes exceed INT64_MAX; ATTN_ERROR_NULL
 * outputs; ATTN_ERROR_VALUE outputs->struct_size. *outputs is untouched after an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mha_describe_outputs(
    const attn_mha *layer, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_mha_params *params, attn_mha_outputs *outputs);

ATTN_END_DECLS

#endif
