/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge.h: attention over keys that were attended in parts, put together again.
 *
 *     lse[r]    = log(sum_i exp(lses_i[r]))
 *     output[r] = sum_i exp(lses_i[r] - lse[r]) * outputs_i[r]
 *
 * A part is a call of attn_sdpa over some of the keys, with its lse. Rows that see the keys of all
 * parts get what one call over all of them gives: a prefix that many sequences share is attended
 * once for all of them (a cascade), a cache is spread over machines, keys come round in a ring. The
 * parts are calls like others: their key_lengths, windows, masks and biases are those of their own
 * keys, and where a part begins at key k of the whole, its query_offset is the whole's minus k.
 *
 * Sinks. A sink is a logit of the whole row, so it counts once: give it to one part and to no
 * other, or to none and here. In two parts it would count twice.
 *
 * A part's results may be rounded to 16 bits each time they are stored; results of the score type
 * (float32, or float64 where query is that) are rounded once, when the last merge stores them.
 */
#ifndef ATTENTION_MERGE_H
#define ATTENTION_MERGE_H

#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* Options of attn_sdpa_merge. Grows at its end only; pass by pointer only. */
typedef struct attn_merge_params {
    /* sizeof(attn_merge_params) */
    uint64_t struct_size;

    /* (H) or (1), H output's axis -3 (1 where output has rank 2); any type that outputs may have,
     * or float32: one more logit of the row, without a value, that no part has counted */
    const attn_tensor *sinks;
} attn_merge_params;

/*
 * Merges `count` partial results into one.
 *
 * Arguments  context NULL: the default one. count 1 and up. outputs: an array of `count` views.
 *            lses: likewise, or NULL: the outputs are added as they are, which is how parts of
 *            ATTN_NORMALIZER_SIGMOID and ATTN_NORMALIZER_LINEAR are merged; lse and sinks are NULL
 *            then. params NULL: no sinks. lse NULL: not wanted. The library allocates nothing once
 *            the context's threads run.
 * Shapes     output (..., L, Ev), rank 2 to 8; outputs[i] the same; lse and lses[i] the same
 *            without the last axis.
 * Types      output and outputs[i] each float32, bfloat16 or float16, or all float64; lse and
 *            lses[i] the score type: float64 where output is float64, else float32. Sums are kept
 *            in the score type, and a result is rounded to output's type once.
 * Layout     any strides; 0 too in inputs.
 * Aliasing   output may be exactly outputs[i] (data, dtype and strides) and lse exactly lses[i], of
 *            any number of them. Any other overlap of an output with an input, with itself or with
 *            the other output is an error; what counts as apart is told at attn_sdpa.
 * Rows       a part whose lse is -inf has seen nothing in that row: it weighs 0, and what its
 *            output holds there, NaN too, does not enter. If that is so in all parts, output is 0
 *            and lse -inf, or the sink's logit. A row in which some lse is NaN or +inf is NaN,
 *            output and lse; so is one whose sink is NaN or +inf, but that output is 0 where all
 *            parts are -inf.
 * Numerics   let u = 2^-24, or 2^-53 where output is float64, w_i = exp(lses_i - lse) and m the
 *            largest difference of two of the row's logits, lses above -inf and sink. output is off
 *            by at most (2 m + 2 count + 12) u sum w_i |outputs_i|, lse by (m + 3 count + 6 +
 *            |lse|) u; without lses output by count u sum |outputs_i|. Weights below the smallest
 *            normal number may become 0, and such a part's output then does not enter. Storing 16
 *            bits adds half a step, as at attn_sdpa. An lse of attn_sdpa is off by at most d + (2 T
 *            + 16 + m) u + 8 u |lse| in its own terms; errors of at most x in the lses change
 *            output by at most 2 x sum w_i |outputs_i| where x is small.
 * Bits       parts are added in the order given. A row's bits depend on its own numbers, their
 *            types, count and the kernels: not on threads, layout, alignment or other rows. Another
 *            order of the parts, or merging in steps, may change the last ones.
 * Errors     ATTN_ERROR_NULL outputs, output, data of a tensor that is not empty; ATTN_ERROR_VALUE
 *            count below 1, lse or sinks without lses, struct_size; ATTN_ERROR_SHAPE;
 *            ATTN_ERROR_DTYPE; ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW; ATTN_ERROR_UNSUPPORTED a
 *            dtype of a later version or a newer params struct; ATTN_ERROR_THREAD and
 *            ATTN_ERROR_MEMORY where threads cannot start. A detail names a part as outputs[2] or
 *            lses[2]. Outputs are untouched after an error, but for ATTN_ERROR_THREAD of a
 *            parallel_for that refused, after which they are unspecified.
 * Threads    any number of calls at once, while no thread writes the tensors of another's call.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_sdpa_merge(
    attn_context *context, int64_t count, const attn_tensor *outputs, const attn_tensor *lses,
    const attn_merge_params *params, const attn_tensor *output, const attn_tensor *lse);

ATTN_END_DECLS

#endif
