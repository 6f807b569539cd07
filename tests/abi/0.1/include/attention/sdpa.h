/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa.h: scaled dot-product attention on query, key and value that are already projected and split
 * into heads.
 *
 *     output = normalise(scale * query * key^T, softcap, ALiBi, position_bias, bias, mask) * value
 *
 * It is torch.nn.functional.scaled_dot_product_attention with every option of the field as a member
 * of one struct. A zeroed struct is PyTorch's call without options. Every option composes with
 * every other; none falls back to other results.
 *
 * Shapes. query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L,
 * Ev); ranks 2 to 8, which may differ. Axis -3 is the head axis: rank 3 is one batch, rank 2 one
 * head. The axes before it are batch axes and broadcast as in PyTorch (aligned at the end, length 1
 * or missing repeats). Without enable_gqa the head axis broadcasts like a batch axis.
 * "Batch axes" below means the broadcast batch axes of query, key and value together, which are
 * output's.
 *
 * Keys elsewhere. With params.kv keys and values lie as kv.h says: in caches that grow, one
 * sequence behind the other, or in pages; the arguments key and value are then NULL. S, the
 * columns of mask, bias, weights and scores, is C where every sequence has as much room; with
 * starts or page_starts it is the number of columns that these have (a mask with mask_start has its
 * own), no fewer than any sequence has keys; where there are none, as many as the columns of
 * block_mask reach, if it has more than one, or else all rows of key. Keys and columns count within
 * the sequence.
 * Everything else is as if each sequence had a key and a value of its own, to the bit.
 *
 * Ragged queries. With params.query_starts query is (Hq, total, E): row i of sequence b is row
 * query_starts[b] + i. output, lse, weights, scores and the rows of mask and bias lie likewise,
 * without batch axes; there is one batch axis, B, which key, value and what belongs to sequences
 * may have. Rows of no sequence are neither read nor written.
 *
 * Types. query is float32, float64, bfloat16 or float16. A float64 query has float64 keys and
 * values; beside the others key and value may each be float32, bfloat16 or float16, whatever query
 * is, and in kv also integers with scales (see kv.h). The score type, of lse and of all sums:
 * float64 where query is float64, else float32. output and weights have query's dtype or the score
 * type. An element of 16 bits means exactly the number it holds; computing is float32's, and a
 * result of 16 bits is rounded once, to nearest, at the end.
 *
 * Visibility. Row i of the queries stands at position p(i) = i + query_offset among the keys. It
 * sees key j if all of these allow it:
 *   is_causal     j <= p(i)
 *   window        p(i) - left <= j <= p(i) + right, -1 = unlimited
 *   key_lengths   j < key_lengths
 *   mask_start    j < mask_start + M, M the columns of mask
 *   block_mask    the block of i and j is not ATTN_BLOCK_HIDDEN
 *   mask, bias    a bool mask, or an additive mask, bias or position_bias that is not -inf there
 * Keys and values that a row does not see by causality, window, length, mask_start or block_mask
 * never enter its result. Those that one of the first four hides from all rows of their head and
 * batch are never read, nor those whose blocks are hidden from them (but keys, for scores that are
 * asked for before the mask: enum attn_score_stage). If a key or value that is hidden only by a
 * dense mask or bias is NaN or infinite, the rows that hide it may be NaN or finite, not always
 * alike: this is the one case left unspecified. A row that sees nothing (or S = 0) is empty: output
 * 0, weights 0, lse -inf (the sink's logit where there is one), whatever key and value hold.
 *
 * Order. score = scale * (q . k); softcap: score = softcap * tanh(score / softcap); ALiBi: score -=
 * slope[h] * |p(i) - j|; position_bias; bias; mask; normaliser. Softmax subtracts the row's maximum
 * first. Sums of a finite score and finite biases and masks stay finite.
 */
#ifndef ATTENTION_SDPA_H
#define ATTENTION_SDPA_H

#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/kv.h>
#include <attention/softmax.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* Bits of attn_sdpa_params.set: which fields count although 0 would be a value of theirs. */
enum attn_sdpa_set {
    /* scale, whatever its value; without it scale must be 0 and 1/sqrt(E) is used */
    ATTN_SDPA_SET_SCALE = 1,

    /* window_left and window_right; without it both must be 0 and there is no window */
    ATTN_SDPA_SET_WINDOW = 2
};

/* What turns scores into weights. An excluded position weighs 0 in each. */
enum attn_normalizer {
    ATTN_NORMALIZER_SOFTMAX = 0, /* exp(score - lse) */
    ATTN_NORMALIZER_SIGMOID = 1, /* 1 / (1 + exp(-score)), no row sum, no added bias */
    ATTN_NORMALIZER_LINEAR = 2   /* the score itself: plain linear attention */
};

/*
 * Which scores attn_sdpa_params.scores are. In each a key at or past its sequence's key length is
 * not read; sinks take no part. The stages are the modes 0 to 2 of ONNX's qk_matmul_output.
 */
enum attn_score_stage {
    /* scale * (q . k) of every row and every key, those too that causality, window, mask or bias
     * hide, which are read for it; 0 at and past the key length */
    ATTN_SCORE_SCALED = 0,

    /* the same after softcap */
    ATTN_SCORE_CAPPED = 1,

    /* what the normalizer gets: ALiBi, bias and mask added, too; -inf where a row does not see the
     * key, and at and past the key length */
    ATTN_SCORE_MASKED = 2
};

/* An element of attn_sdpa_params.block_mask. */
enum attn_block {
    ATTN_BLOCK_HIDDEN = 0,  /* its rows do not see its keys */
    ATTN_BLOCK_VISIBLE = 1, /* mask is not asked */
    ATTN_BLOCK_MASKED = 2   /* mask is asked; without one as ATTN_BLOCK_VISIBLE */
};

/* Bits of attn_sdpa_report.packs: the tensor goes through a copy in scratch memory, a block at a
 * time. */
enum attn_sdpa_pack {
    ATTN_SDPA_PACK_QUERY = 1,
    ATTN_SDPA_PACK_KEY = 2,
    ATTN_SDPA_PACK_VALUE = 4,
    ATTN_SDPA_PACK_OUTPUT = 8
};

/*
 * What a call runs and why, for people to read: what the numbers count may change with the engines.
 * Filled by attn_sdpa_explain before the call, and by the run itself through
 * attn_sdpa_params.report; in a layer it is of the attention alone (attn_mha_report has the
 * layer's). The caller sets struct_size; fields this version does not know become 0; strings are
 * static memory.
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

    /* enum attn_sdpa_pack, added: tensors whose layout is not one the engine reads or writes in
     * place, and in the fused engine query always, value where many rows share the copy, output
     * where rows are gathered from few at a time or from chunks of the keys */
    int32_t packs;

    /* query rows handled together; of a group of heads that share key and value, in the fused
     * engine */
    int64_t row_block;

    /* pieces of work: blocks of rows over all batches and heads, and in the fused engine, where
     * these are few, also over chunks of the keys: before the call all of them, after it those that
     * some row sees; 0 when there is nothing to compute */
    int64_t num_blocks;

    /* as attn_sdpa_workspace_bytes; of a call with query_starts and no workspace, what it took */
    uint64_t workspace_bytes;

    /* name of the row kernels */
    const char *kernels;

    /* one sentence: why this engine */
    const char *reason;
} attn_sdpa_report;

/*
 * Which weights are dropped: each is multiplied by 0 with a probability, else by 1 / (1 -
 * probability), so that results are right on average. Which ones depends on nothing but these
 * numbers and the weight's place: not on engines, kernels, threads or layouts, so that a backward
 * pass drops the same.
 *
 * The weight of key j for row i of query head h and batch b has the word (j mod 4) of
 *
 *     Philox4x32-10, counter {j / 4, i, h + 2^16 (b mod 2^16), b / 2^16},
 *                    key {low, high} 32 bits of seed xor mix64(offset),
 *
 * b the number of its batch in the order of the batch axes, or of its sequence, j and i counted
 * within the sequence, after the four numbers below are added; columns behind the S keys, which a
 * layer has, follow S - 1. It is kept if the word is at least probability * 2^32, rounded and below
 * 2^32. mix64 is the finaliser of SplitMix64: z ^= z >> 30; z *= 0xbf58476d1ce4e5b9; z ^= z >> 27; z
 * *= 0x94d049bb133111eb; z ^= z >> 31. Since mix64(0) = 0, key {0, 0} is seed 0, offset 0. (Salmon,
 * Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. 2011.)
 *
 *     counter                                key                 words
 *     00000000 00000000 00000000 00000000    00000000 00000000   6627e8d5 e169c58d bc57ac4c 9b00dbd8
 *     ffffffff ffffffff ffffffff ffffffff    ffffffff ffffffff   408f276d 41c83b0e a20bc7c6 6d5451fd
 *     243f6a88 85a308d3 13198a2e 03707344    a4093822 299f31d0   d16cfe09 94fdcceb 5001e420 24126ea1
 *
 * Places from column 2^34, row 2^32, head 2^16 or batch 2^48 on are ATTN_ERROR_UNSUPPORTED.
 */
typedef struct attn_dropout {
    /* sizeof(attn_dropout) */
    uint64_t struct_size;

    /* 0 to below 1; 0: none */
    double probability;

    /* any number: which of the streams */
    uint64_t seed;

    /* any number: another one for every step and layer */
    uint64_t offset;

    /* >= 0, added to the number of a weight's batch: a part of a larger problem drops what the
     * whole would */
    int64_t batch;

    /* likewise to that of its head */
    int64_t head;

    /* likewise to that of its row */
    int64_t row;

    /* likewise to that of its column */
    int64_t column;
} attn_dropout;

/* Options of attn_sdpa. All zero after struct_size: PyTorch's call without options. Grows at its
 * end only; pass by pointer only. */
typedef struct attn_sdpa_params {
    /* sizeof(attn_sdpa_params) */
    uint64_t struct_size;

    /* enum attn_sdpa_set, added */
    int32_t set;

    /* 0 or 1: row i sees no key past p(i) */
    int32_t is_causal;

    /* with ATTN_SDPA_SET_SCALE: multiplier of q . k; any value but NaN, also 0 and negative; it
     * is rounded to the score type */
    double scale;

    /* > 0 and finite: scores are softcap * tanh(score / softcap); 0: none */
    double softcap;

    /* with ATTN_SDPA_SET_WINDOW: keys before p(i) that are seen, >= -1, -1 = all */
    int64_t window_left;

    /* likewise after p(i) */
    int64_t window_right;

    /* 0 or 1: Hq is a multiple of Hk and of Hv, each on its own; query head h uses key head
     * h / (Hq / Hk) */
    int32_t enable_gqa;

    /* 0 or 1: the last query row stands at the last key of its sequence: query_offset, which must
     * be NULL, is the key length (S without key_lengths) - L */
    int32_t align_end;

    /* enum attn_normalizer */
    int32_t normalizer;

    /* enum attn_mask_kind */
    int32_t mask_kind;

    /* broadcastable to (batch axes, Hq, L, S), rank 1 and up; dtype see enum attn_mask_kind */
    const attn_tensor *mask;

    /* a second additive mask, beside any kind of mask (T5's and Swin's learned bias):
     * broadcastable likewise; query's dtype or float32 */
    const attn_tensor *bias;

    /* int64 or int32, broadcastable to the batch axes (rank 0: one for all): position of query row
     * 0 among the keys; default 0; may be negative; sums saturate */
    const attn_tensor *query_offset;

    /* int64 or int32, broadcastable to the batch axes: keys at or past it do not exist; 0 to S */
    const attn_tensor *key_lengths;

    /* (Hq) or (1); query's dtype or float32 */
    const attn_tensor *alibi_slopes;

    /* (Hq) or (1); query's dtype or float32: one more logit in softmax's denominator, without a
     * value; not scaled; softmax only */
    const attn_tensor *sinks;

    /* written by a call, read by its backward: output's shape without its last axis, the score
     * type: natural logarithm of the row's sum of exponentials, the sink included; -inf for an
     * empty row without a sink; softmax only */
    const attn_tensor *lse;

    /* out, query's dtype or the score type. Of output's rank: one matrix per head, (batch axes, Hq,
     * L, S), without Hq if output has no head axis. Of one less: their mean over the heads, (batch
     * axes, L, S), where output has a head axis */
    const attn_tensor *weights;

    /* out: what ran */
    attn_sdpa_report *report;

    /* where keys and values lie, if not in tensors with a matrix for each batch and head: key,
     * value and key_lengths are NULL then. See kv.h */
    const attn_kv *kv;

    /* int64 or int32, (B + 1): sequence b has query rows query_starts[b] to
     * query_starts[b + 1] - 1; ascending, 0 to total. See Ragged queries at the top of this file */
    const attn_tensor *query_starts;

    /* out, the score type: (batch axes, Hq, L, S), without Hq if output has no head axis: the
     * scores themselves, of scores_stage */
    const attn_tensor *scores;

    /* enum attn_score_stage; without scores it has no effect */
    int32_t scores_stage;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;

    /* int64 or int32, broadcastable to the batch axes: the key that mask's first column belongs to;
     * may be negative; only with mask. The mask then has any number M of columns, 1 being one and
     * not S alike: keys before the first are visible as far as it is concerned, those behind the
     * last hidden. So a tree of drafts over a cache needs a mask of its own rows and columns only
     * (mask_start = key length - L), and with mask_start 0 a mask may be shorter than S, as ONNX's
     * Attention pads it. NULL: the mask has S columns, or 1 that is all of them */
    const attn_tensor *mask_start;

    /* (Hq or 1, 2 R + 1), R >= 0; query's dtype or float32: score += position_bias[h, R + d], d = j
     * - p(i), but at most R and at least -R. T5's relative positions are such a table, R the
     * largest distance that has a bucket of its own, and Swin's along one axis, R = window - 1 */
    const attn_tensor *position_bias;

    /* uint8, enum attn_block, rank 1 and up: broadcastable to (batch axes, Hq, ceil(L /
     * block_rows), ceil(S / block_columns)). Row i and key j, counted within their sequence, meet
     * in block (i / block_rows, j / block_columns). FlexAttention's lists of full and partial
     * blocks are such a mask; so are documents, sliding blocks, and chosen pages of a cache. It
     * takes from what a row sees: causality, window, lengths and mask_start hold in every block,
     * bias and position_bias in those that are not hidden, and only mask is asked where it says so.
     * Elements of mask that are not asked for, and those of mask and bias that it hides, are not
     * read. Blocks that are hidden from all rows of a head take no time. Values beyond the enum are
     * ATTN_ERROR_UNSUPPORTED. With query_starts the axis of rows, and with kv's starts or
     * page_starts that of columns, has any number of blocks: 1 is for all, else they must reach the
     * last row of the longest sequence, and S */
    const attn_tensor *block_mask;

    /* rows of a block: >= 1 with block_mask, else 0 */
    int64_t block_rows;

    /* keys of a block, likewise */
    int64_t block_columns;

    /* NULL: none, as in evaluation. Of the weights that weigh values and that are returned; lse is
     * of those before it */
    const attn_dropout *dropout;
} attn_sdpa_params;

/*
 * Scaled dot-product attention, forward.
 *
 * Arguments  context NULL: the default one. params NULL: all defaults. output and the optional
 *            outputs are described by views and written through their data pointers. workspace
 *            NULL: the call makes one allocation; else at least attn_sdpa_workspace_bytes bytes at
 *            any alignment, and the library allocates nothing once the context's threads run
 *            (attn_context_start; else the first large call starts them). With query_starts the
 *            workspace is for whatever they are; without one the call takes what these need. A
 *            call without an element to write in output, lse, weights and scores returns at once
 *            and wants no workspace, however long its other axes are; keys are then not read.
 * Shapes     see the top of this file, as for types.
 * Layout     any strides, negative and (inputs) zero ones too.
 * Aliasing   an output must not overlap itself, another output or any input, nor may the bytes of
 *            workspace that are needed overlap any tensor. Two tensors count as apart if their
 *            address ranges are, or if within one stride of the output they are (column slices of
 *            one buffer); rarer interleavings are refused although no element is shared. An
 *            output's axes must nest: by ascending stride, each steps over all that the smaller
 *            ones reach.
 * Numerics   let u = 2^-24, or 2^-53 where query is float64, w the exact weights of a row and T the
 *            keys it sees. A score, which scores also hold as they are, is off by at most d = (E +
 *            9) u (|scale| sum |q k| + |slope (p - j)| + |position_bias| + |bias| + |mask|), the
 *            largest over the row, and softmax's output by (2 d + (T + 16 + m) u) sum w |v|, m the
 *            largest difference of two visible scores, where that factor is below 0.01 (its square
 *            is left out). Storing a result of 16 bits adds half a step between neighbours of its
 *            type: at most 2^-8 of a bfloat16, 2^-11 of a float16 that is 2^-14 or more, 2^-25
 *            below; beyond the largest number, 65504 of float16, it is infinite. The exact result
 *            is that of the numbers the inputs hold. Kernels whose name ends with _bf16 multiply
 *            pairs of bfloat16: where query, key and value all have that type, more than 4 query
 *            rows (of all heads that share a key head) round each weight to it, which adds at most
 *            2^-8 sum w |v|, and count numbers and products below 2^-126 as 0;
 *            attn_context_config.float32_weights asks them not to. NaN in a visible score makes its
 *            row NaN, whatever dropout leaves of it. With dropout w are the weights it leaves, each
 *            off by 2 u more. E = 0 makes every score 0. Empty rows: see above.
 * Bits       a sequence's are its own. Output, lse and weights of one batch index have the same
 *            bits in a batch of any size, at any capacity (keys at or past key_lengths, however
 *            many), in any layout and alignment, by any number of threads, and from call to call.
 *            They depend on its own lengths and options, on whether weights are asked for, on the
 *            engine and the kernels. Scores are computed by the library's own products whatever the
 *            engine, apart from the rest: their bits depend on their query, key and options and on
 *            the kernels alone, and asking for them changes no bit of the other outputs. Where BLAS
 *            computes, as it does for float64 by default (attn_sdpa_report tells), this is for the
 *            BLAS to keep; ATTN_GEMM_NATIVE keeps it.
 * Errors     ATTN_ERROR_NULL a required tensor, or data of a tensor that is not empty;
 *            ATTN_ERROR_VALUE an option out of range, scale or window without its bit in set, mask
 *            without kind or kind without mask, mask_start without mask, block_rows or
 *            block_columns without block_mask, one with too few rows for a sequence, sinks or lse
 *            without softmax, query_offset beside align_end, a key length outside 0..S, in dropout
 *            a probability outside 0..1, or 1, or a negative place, key, value or key_lengths
 *            beside kv, in kv starts beside page_table or page_starts without it, starts that do
 *            not ascend or end past their rows, a page of a key that is seen which is none;
 *            ATTN_ERROR_SHAPE; ATTN_ERROR_DTYPE; ATTN_ERROR_OVERLAP; ATTN_ERROR_OVERFLOW;
 *            ATTN_ERROR_WORKSPACE; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD; ATTN_ERROR_UNSUPPORTED a
 *            bit of set, enum value (also in block_mask) or dtype of a later version, a newer
 *            params or dropout struct, places that are too large for attn_dropout, float64 under
 *            ATTN_ENGINE_FUSED; ATTN_ERROR_BLAS. Outputs are untouched after an error, but for
 *            ATTN_ERROR_THREAD of a parallel_for that refused, after which they are unspecified.
 * Threads    any number of calls at once, on one context too, while no thread writes the tensors of
 *            another's call. One that writes lengths, starts, pages, query_offset, mask_start,
 *            block_mask or a mask all the same makes numbers wrong, or a call fail with
 *            ATTN_ERROR_VALUE; none leaves its tensors' memory for it.
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
 * Data pointers are not looked at and may be NULL. Errors: as attn_sdpa but for data, key lengths
 * and the overlap of tensors with each other; ATTN_ERROR_NULL bytes. Since 0.1.
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

/*
 * The outputs that belong to a call's inputs: dtype and shape of each, with the strides of
 * contiguous memory and data NULL, for whoever allocates them. The caller sets struct_size; fields
 * this version does not know become 0.
 */
typedef struct attn_sdpa_outputs {
    /* in: sizeof(attn_sdpa_outputs) */
    uint64_t struct_size;

    /* (batch axes, Hq, L, Ev) */
    attn_tensor output;

    /* of params.lse; all zero (dtype ATTN_DTYPE_INVALID) where the normalizer has none */
    attn_tensor lse;

    /* of params.weights, one matrix per head */
    attn_tensor weights;

    /* of params.weights, their mean over the heads; as weights where output has no head axis */
    attn_tensor averaged_weights;

    /* of params.scores */
    attn_tensor scores;
} attn_sdpa_outputs;

/*
 * Fills *outputs for these inputs and options. Data pointers are not looked at, nor are params's
 * lse, weights, scores and report. Allocates nothing; any thread. Errors: as
 * attn_sdpa_workspace_bytes; ATTN_ERROR_OVERFLOW an output's bytes exceed INT64_MAX;
 * ATTN_ERROR_NULL outputs; ATTN_ERROR_VALUE outputs->struct_size. *outputs is untouched after an
 * error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_sdpa_describe_outputs(const attn_tensor *query,
                                                                const attn_tensor *key,
                                                                const attn_tensor *value,
                                                                const attn_sdpa_params *params,
                                                                attn_sdpa_outputs *outputs);

ATTN_END_DECLS

#endif
