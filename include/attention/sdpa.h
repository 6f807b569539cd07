/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa.h: scaled dot-product attention on query, key and value that are already projected and split
 * into heads.
 *
 *     output = normalise(scale * query * key^T, softcap, ALiBi, mask) * value
 *
 * It is torch.nn.functional.scaled_dot_product_attention with every option of the field as a member
 * of one struct. A zeroed struct is PyTorch's call without options. Every option composes with
 * every other; none falls back to other results.
 *
 * Shapes. query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L,
 * Ev); ranks 2 to 8, which may differ. Axis -3 is the head axis: rank 3 is one batch, rank 2 one
 * head. The axes before it are batch axes and broadcast as in PyTorch (aligned at the end, length 1
 * or missing repeats). Without ATTN_SDPA_ENABLE_GQA the head axis broadcasts like a batch axis.
 * "Batch axes" below means the broadcast batch axes of query, key and value together, which are
 * output's.
 *
 * Visibility. Row i of the queries stands at position p(i) = i + query_offset among the keys. It
 * sees key j if all of these allow it:
 *   is_causal     j <= p(i)
 *   window        p(i) - left <= j <= p(i) + right, -1 = unlimited
 *   key_lengths   j < key_lengths
 *   mask          a bool mask, or an additive mask that is not -inf there
 * Keys and values that a row does not see by causality, window or length never enter its result,
 * and those no row of the same head and batch sees are never read. If a key or value that is hidden
 * only by a dense mask is NaN or infinite, the rows that hide it may be NaN or finite: this is the
 * one case left unspecified. A row that sees nothing (or S = 0) is empty: output 0, weights 0, lse
 * -inf, whatever key and value hold.
 *
 * Order. score = scale * (q . k); softcap: score = softcap * tanh(score / softcap); ALiBi: score -=
 * slope[h] * |p(i) - j|; mask; normaliser. Softmax subtracts the row's maximum first.
 */
#ifndef ATTENTION_SDPA_H
#define ATTENTION_SDPA_H

#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/softmax.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* Bits of attn_sdpa_params.flags. */
enum attn_sdpa_flag {
    /* use params.scale, whatever its value; without it scale must be 0 and 1/sqrt(E) is used */
    ATTN_SDPA_SET_SCALE = 1,

    /* use params.window_left and window_right; without it both must be 0 and there is no window */
    ATTN_SDPA_SET_WINDOW = 2,

    /* Hq is a multiple of Hk and of Hv, each on its own; query head h uses key head
     * h / (Hq / Hk) */
    ATTN_SDPA_ENABLE_GQA = 4,

    /* params.weights receives the mean over heads instead of one matrix per head */
    ATTN_SDPA_AVERAGE_WEIGHTS = 8
};

/* What turns scores into weights. An excluded position weighs 0 in each. */
enum attn_normalizer {
    ATTN_NORMALIZER_SOFTMAX = 0, /* exp(score - lse) */
    ATTN_NORMALIZER_SIGMOID = 1, /* 1 / (1 + exp(-score)), no row sum, no added bias */
    ATTN_NORMALIZER_NONE = 2     /* the score itself: plain linear attention */
};

/*
 * What a call runs and why. Filled by attn_sdpa_explain before the call, and by the run itself
 * through attn_sdpa_params.report. The caller sets struct_size; strings are static memory.
 */
typedef struct attn_sdpa_report {
    /* in: sizeof(attn_sdpa_report) */
    uint64_t struct_size;

    /* enum attn_engine: ATTN_ENGINE_FUSED or ATTN_ENGINE_BLAS */
    int32_t engine;

    /* enum attn_gemm: who computes the matrix products; the fused engine: ATTN_GEMM_NATIVE */
    int32_t gemm;

    /* 1: the last bits may differ with the number of threads BLAS uses */
    int32_t depends_on_blas_threads;

    /* bit 0 query, 1 key, 2 value, 3 output: the tensor goes through a copy in scratch memory, a
     * block at a time: where its layout is not one the engine reads or writes in place, and in the
     * fused engine query always, value where many rows share the copy, output where rows are
     * gathered from few at a time or from splits of the keys */
    int32_t packs;

    /* query rows handled together; of a group of heads that share key and value, in the fused
     * engine */
    int64_t row_block;

    /* pieces of work: blocks of rows over all batches and heads, and in the fused engine also over
     * splits of the keys; 0 when there is nothing to compute */
    int64_t num_blocks;

    /* as attn_sdpa_workspace_bytes */
    uint64_t workspace_bytes;

    /* name of the row kernels */
    const char *kernels;

    /* one sentence: why this engine */
    const char *reason;
} attn_sdpa_report;

/* Options of attn_sdpa. All zero after struct_size: PyTorch's call without options. Grows at its
 * end only; pass by pointer only. */
typedef struct attn_sdpa_params {
    /* sizeof(attn_sdpa_params) */
    uint64_t struct_size;

    /* enum attn_sdpa_flag, added */
    uint64_t flags;

    /* with ATTN_SDPA_SET_SCALE: multiplier of q . k; any value but NaN, also 0 and negative; for
     * float32 tensors it is rounded to float32 */
    double scale;

    /* > 0 and finite: scores are softcap * tanh(score / softcap); 0: none */
    double softcap;

    /* with ATTN_SDPA_SET_WINDOW: keys before p(i) that are seen, >= -1, -1 = all */
    int64_t window_left;

    /* likewise after p(i) */
    int64_t window_right;

    /* 0 or 1 */
    int32_t is_causal;

    /* enum attn_normalizer */
    int32_t normalizer;

    /* enum attn_mask_kind */
    int32_t mask_kind;

    /* must be 0 */
    int32_t reserved;

    /* broadcastable to (batch axes, Hq, L, S), rank 1 and up; dtype see enum attn_mask_kind */
    const attn_tensor *mask;

    /* int64, broadcastable to the batch axes (rank 0: one for all): position of query row 0
     * among the keys; default 0; may be negative; sums saturate */
    const attn_tensor *query_offset;

    /* int64, broadcastable to the batch axes: keys at or past it do not exist; 0 to S */
    const attn_tensor *key_lengths;

    /* (Hq) or (1); query's dtype or float32 */
    const attn_tensor *alibi_slopes;

    /* (Hq) or (1); query's dtype or float32: one more logit in softmax's denominator, without a
     * value; not scaled; softmax only */
    const attn_tensor *sinks;

    /* out: output's shape without its last axis, query's dtype: natural logarithm of the row's
     * sum of exponentials, the sink included; -inf for an empty row without a sink; softmax only */
    const attn_tensor *lse;

    /* out: (batch axes, Hq, L, S) with Hq the length of output's head axis, without that axis if
     * output has none, or (batch axes, L, S) with ATTN_SDPA_AVERAGE_WEIGHTS; query's dtype */
    const attn_tensor *weights;

    /* out: what ran */
    attn_sdpa_report *report;
} attn_sdpa_params;

/*
 * Scaled dot-product attention, forward.
 *
 * Arguments  context NULL: the default one. params NULL: all defaults. output and the optional
 *            outputs are described by views and written through their data pointers. workspace
 *            NULL: the call makes one allocation; else at least attn_sdpa_workspace_bytes bytes at
 *            any alignment, and the library allocates nothing.
 * Shapes     see the top of this file. All of query, key, value, output: float32, or all float64.
 * Layout     any strides, negative and (inputs) zero ones too.
 * Aliasing   an output must not overlap itself, another output or any input. Elements that
 *            interleave without touching (column slices of one buffer) are fine.
 * Numerics   let u = 2^-24 (float32) or 2^-53 (float64), w the exact weights of a row and T the
 *            keys it sees. A score is off by at most d = (E + 8) u (|scale| sum |q k| + |slope (p -
 *            j)| + |mask|), the largest over the row, and softmax's output, to first order, by (2 d
 *            + (T + 16 + m) u) sum w |v|, m the largest difference of two visible scores. NaN in a
 *            visible score makes its row NaN. E = 0 makes every score 0. Empty rows: see above.
 * Errors     ATTN_ERROR_NULL a required tensor, or data of a tensor that is not empty;
 *            ATTN_ERROR_VALUE an option out of range, scale or window without its flag, an unknown
 *            flag, mask without kind or kind without mask, sinks or lse without softmax, a key
 *            length outside 0..S; ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE; ATTN_ERROR_OVERLAP;
 *            ATTN_ERROR_OVERFLOW; ATTN_ERROR_WORKSPACE; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD;
 *            ATTN_ERROR_UNSUPPORTED a newer params struct; ATTN_ERROR_BLAS. Outputs are untouched
 *            after an error, but for ATTN_ERROR_THREAD, after which they are unspecified.
 * Threads    any number of calls at once, on one context too, while no thread writes the tensors of
 *            another's call.
 * Since 0.1. Defined by torch.nn.functional.scaled_dot_product_attention (2.13); differences: mask
 * and is_causal compose; a wrongly shaped mask is always an error; the options that PyTorch does
 * not have.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_sdpa(attn_context *context, const attn_tensor *query,
                                               const attn_tensor *key, const attn_tensor *value,
                                               const attn_sdpa_params *params,
                                               const attn_tensor *output, void *workspace,
                                               size_t workspace_bytes);

/*
 * Bytes of workspace attn_sdpa needs for the same context and arguments, into *bytes. They depend
 * on shapes, strides, options and the context, never on values, and may change between versions.
 * Data pointers are not looked at and may be NULL. Errors: as attn_sdpa but for data and key
 * lengths; ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_sdpa_workspace_bytes(attn_context *context, const attn_tensor *query, const attn_tensor *key,
                          const attn_tensor *value, const attn_sdpa_params *params,
                          const attn_tensor *output, size_t *bytes);

/*
 * Fills *report with what attn_sdpa would run for the same context and arguments, and why, without
 * running it. Data pointers are not looked at. Errors: as attn_sdpa_workspace_bytes;
 * ATTN_ERROR_NULL report; ATTN_ERROR_VALUE report->struct_size. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status
attn_sdpa_explain(attn_context *context, const attn_tensor *query, const attn_tensor *key,
                  const attn_tensor *value, const attn_sdpa_params *params,
                  const attn_tensor *output, attn_sdpa_report *report);

ATTN_END_DECLS

#endif
