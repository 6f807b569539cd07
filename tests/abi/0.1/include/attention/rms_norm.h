/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rms_norm.h: RMS normalisation of rows, as many models apply it to the queries and keys of each
 * head before they are rotated (rope.h).
 */
#ifndef ATTENTION_RMS_NORM_H
#define ATTENTION_RMS_NORM_H

#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* Options of attn_rms_norm. All zero after struct_size: PyTorch's without parameters. */
typedef struct attn_rms_norm_params {
    /* sizeof(attn_rms_norm_params) */
    uint64_t struct_size;

    /* broadcastable to input's shape, mostly (E); float64 where input is float64; else float32,
     * bfloat16 or float16. NULL: 1, whatever weight_offset is */
    const attn_tensor *weight;

    /* > 0 and finite: added to the mean of the squares; 0: PyTorch's default, 2^-23, or 2^-52 where
     * input is float64. (What a model means by none at all is a tiny one, 1e-300.) */
    double epsilon;

    /* finite: added to weight; 1 where a model stores weight - 1, as Gemma does; 0 without weight
     */
    double weight_offset;
} attn_rms_norm_params;

/*
 * Divides each row, along the last axis, by the root of the mean of its squares:
 *
 *     output = input / sqrt(mean(input^2) + epsilon) * (weight_offset + weight)
 *
 * Shapes     input (..., E), rank 1 to 8; output the same shape. E = 0: nothing is done.
 * Types      input float32, float64, bfloat16 or float16; output input's dtype or the score type
 *            (float64 where input is float64, else float32).
 * Layout     any strides, negative and (inputs) zero ones too. Nothing is allocated once the
 *            context's threads run.
 * Aliasing   output may be exactly input (same data, strides and dtype). Any other overlap of
 *            output with itself or an input is an error. What counts as overlap: see attn_sdpa.
 * Numerics   sums and products are float64's for every type, and are rounded once to the score
 *            type, from which a result of 16 bits is rounded once more. With u = 2^-24, or 2^-53
 *            where input is float64, a result is off by at most (u + (E + 8) 2^-53) |output|;
 *            storing 16 bits adds half a step of the type (see attn_sdpa). No square overflows or
 *            vanishes: a row of 1e30 in float32 or of 1e200 in float64 becomes one of 1, where
 *            PyTorch's is 0. Results below the smallest normal number of the score type may become
 *            0. A row with NaN is NaN; one with an infinity is NaN there and 0 elsewhere, as
 *            PyTorch's. Rows do not affect one another.
 * Bits       a row's do not depend on the other rows, the layout or the number of threads.
 * Errors     ATTN_ERROR_NULL input, output, data of a tensor that is not empty; ATTN_ERROR_VALUE
 *            struct_size, epsilon or weight_offset out of range, weight_offset without weight;
 *            ATTN_ERROR_SHAPE rank 0, output's shape, weight not broadcastable; ATTN_ERROR_DTYPE;
 *            ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD;
 *            ATTN_ERROR_UNSUPPORTED a dtype of a later version, or a newer params struct. output
 *            is untouched after an error, but for ATTN_ERROR_THREAD of a parallel_for that refused.
 * Threads    any number of calls at once while no other thread writes the tensors.
 * Since 0.1. Defined by torch.nn.RMSNorm (2.13), whose default epsilon is that of the type it
 * computes in: float32's for 16 bits.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_rms_norm(attn_context *context, const attn_tensor *input,
                                                   const attn_rms_norm_params *params,
                                                   const attn_tensor *output);

ATTN_END_DECLS

#endif
