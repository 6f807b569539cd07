/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope.h: rotary positions (RoPE) of queries and keys.
 *
 * Features are taken in pairs, and each pair is turned by an angle that grows with the position:
 * after that the product of a query and a key depends on their distance alone. Queries and keys
 * are rotated after they are projected, and normalised where a model does that (rms_norm.h), and
 * before they are appended to a cache.
 */
#ifndef ATTENTION_ROPE_H
#define ATTENTION_ROPE_H

#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* Options of attn_rope. All zero after struct_size: all features, pairs of halves, base 10000,
 * positions 0, 1, ... */
typedef struct attn_rope_params {
    /* sizeof(attn_rope_params) */
    uint64_t struct_size;

    /* R: the first R features are rotated, the others copied; even, 0 to E; 0: all of E */
    int64_t rotary_dim;

    /* > 0 and finite: pair i turns by base^(-2 i / R) for each position; 0: 10000 */
    double base;

    /* finite: cosines and sines are multiplied by it, those of tables too (YaRN's attention
     * factor); 0: 1 */
    double magnitude;

    /* pair i is 0: features (i, i + R / 2), Llama's halves; 1: features (2 i, 2 i + 1), GPT-J's */
    int32_t interleaved;

    /* 0 or 1: by the negative angle. That undoes a rotation of magnitude 1, and of any magnitude
     * it is the gradient: the transposed matrix */
    int32_t inverse;

    /* (R / 2), any float dtype, instead of base: the turn of pair i for each position. Every way to
     * stretch positions (linear, NTK, YaRN, Llama 3's) is such a table */
    const attn_tensor *frequencies;

    /* the cosines of the angles, instead of base and frequencies, with sin. With positions or
     * lengths (P, R / 2), where position p finds row p, 0 <= p < P; without them broadcastable to
     * (batch axes, L, R / 2). float64 where input is float64; else float32, bfloat16 or float16 */
    const attn_tensor *cos;

    /* the sines, likewise; as many positions as cos */
    const attn_tensor *sin;

    /* int64 or int32, broadcastable to (batch axes, L): the rows' positions. NULL: lengths - L + i,
     * or i without lengths */
    const attn_tensor *positions;

    /* int64 or int32, broadcastable to the batch axes, >= 0: rows of the sequence, those of input
     * included, which are its last; instead of positions */
    const attn_tensor *lengths;
} attn_rope_params;

/*
 * Rotates features by position. With a = position * frequency[i], for each pair (x, y):
 *
 *     (x', y') = magnitude * (x cos a - y sin a, y cos a + x sin a)
 *
 * Shapes     input (batch axes, H, L, E), rank 2 to 8; rank 2 has no head axis, rank 3 no batch
 *            axis. output: the same shape. All heads have the same positions.
 * Types      input float32, float64, bfloat16 or float16; output input's dtype or the score type
 *            (float64 where input is float64, else float32), in which the rotation is computed; a
 *            result of 16 bits is rounded once.
 * Layout     any strides, negative and (inputs) zero ones too. Nothing is allocated once the
 *            context's threads run. Angles are computed once for all heads, and for all batches
 *            that share their positions.
 * Aliasing   output may be exactly input (same data, strides and dtype). Any other overlap of
 *            output with itself or an input is an error. What counts as overlap: see attn_sdpa.
 * Numerics   let u = 2^-24, or 2^-53 where input is float64, m = |magnitude|. Angles are float64's,
 *            from positions up to 2^53 in size, which it holds exactly, and are reduced exactly:
 *            an angle a is off by at most d = (2 + f) 2^-53 |a|, f = |ln base| + 2 without
 *            frequencies and 0 with them; cosine and sine by m (d + 2^-51), and are then rounded to
 *            the score type. A result is off by at most 5 u m (|x cos a| + |y sin a|) + m (d +
 *            2^-51) (|x| + |y|) (for y': |y cos a| + |x sin a|); with tables, which are as they are
 *            given, d + 2^-51 is left out. Results below the smallest normal number of the score
 *            type may become 0; storing 16 bits adds half a step of the type (see attn_sdpa). A
 *            pair with a NaN or an infinity may be NaN; pairs do not affect one another. Features
 *            from R on keep their bits, or are widened.
 * Bits       a row's do not depend on the other rows, the layout or the number of threads.
 * Errors     ATTN_ERROR_NULL input, output, data of a tensor that is not empty, one of cos and sin
 *            alone; ATTN_ERROR_VALUE struct_size, rotary_dim odd or outside 0..E, base or magnitude
 *            out of range, interleaved or inverse below 0, base beside frequencies, either beside
 *            cos and sin, lengths beside positions, a length below 0, a position outside the
 *            tables; ATTN_ERROR_SHAPE, also E odd where all of it is rotated; ATTN_ERROR_DTYPE;
 *            ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD;
 *            ATTN_ERROR_UNSUPPORTED a dtype or boolean of a later version, or a newer params
 *            struct. output is untouched after an error, but for ATTN_ERROR_THREAD of a
 *            parallel_for that refused.
 * Threads    any number of calls at once while no other thread writes the tensors. One that writes
 *            positions or lengths all the same makes numbers wrong, or the call fail with
 *            ATTN_ERROR_VALUE; it does not leave its tensors' memory for it.
 * Since 0.1. Defined by ONNX RotaryEmbedding (opset 23; cos and sin are cos_cache and sin_cache,
 * positions position_ids, rotary_dim rotary_embedding_dim, its input of rank 3 behind
 * attn_tensor_split_heads) and by Llama in Hugging Face transformers, whose cos and sin hold each
 * half twice: the first R / 2 columns are the tables here.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_rope(attn_context *context, const attn_tensor *input,
                                               const attn_rope_params *params,
                                               const attn_tensor *output);

ATTN_END_DECLS

#endif
