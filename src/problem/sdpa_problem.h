/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_problem.h: one attention call in canonical form, which is all that an engine sees of it.
 *
 * The canonical axes are (batch axes..., head, row, column); every tensor of the call is a base
 * address and one stride for each of them, 0 where it repeats. Broadcasting, missing axes and
 * PyTorch's rank rules end in sdpa_check.c.
 */
#ifndef ATTNI_PROBLEM_SDPA_PROBLEM_H
#define ATTNI_PROBLEM_SDPA_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/sdpa.h>

#include "kernels/dropout_stream.h"
#include "softmax/interval.h"
#include "softmax/mask.h"
#include "tensor/tensor_check.h"

enum { ATTNI_MAX_BATCH_AXES = ATTN_MAX_RANK - 3 };

/* The dense masks of a call, in the order in which they are applied. */
enum { ATTNI_POSITION_BIAS, ATTNI_BIAS, ATTNI_MASK, ATTNI_KEY_PADDING_MASK, ATTNI_MAX_MASKS };

/* A tensor of the call on the canonical axes; strides in elements. */
typedef struct attni_operand {
    char *data;
    int64_t strides[ATTN_MAX_RANK];
    int64_t element_bytes;
    int32_t dtype;
    bool is_present;
} attni_operand;

/* Keys and values that lie in pages: key j of a sequence is row j % rows of page table[j / rows].
 * The operands key and value are then page 0 of one sequence. */
typedef struct attni_pages {
    attni_operand table;  /* of page numbers: batch axes, then one for the pages of a sequence */
    attni_operand starts; /* of a sequence's entries where one table has those of all, one more than
                             sequences; else absent */
    int64_t num_entries;  /* of the last axis of table */
    int64_t count;        /* pages there are */
    int64_t rows;         /* of a page; 0: nothing lies in pages */
    int64_t key_stride;   /* between pages, in elements */
    int64_t value_stride;
} attni_pages;

/* A number for each block of a quantised operand's values: value i along an axis has number i /
 * steps of the axis. */
typedef struct attni_block_numbers {
    char *data;
    int32_t dtype;                  /* 0: there are none */
    int64_t strides[ATTN_MAX_RANK]; /* on the canonical axes; 0 where there is one for all */
    int64_t steps[ATTN_MAX_RANK];
    int64_t page_stride;
    int64_t page_step;
    int64_t cols; /* numbers of a row */
} attni_block_numbers;

/* A mask by blocks of a sequence's rows and keys: row i and key j meet in block (i / block_rows,
 * j / block_columns), whose element is an enum attn_block. */
typedef struct attni_block_mask {
    const unsigned char *data;
    int64_t strides[ATTN_MAX_RANK]; /* on the canonical axes, of blocks; 0 where it repeats */
    int64_t block_rows;
    int64_t block_columns; /* 0: there is no such mask */
    int64_t num_rows;      /* of blocks: those behind the last are as the last */
} attni_block_mask;

/* What makes numbers of the elements of key or value: (element - zero) * scale. */
typedef struct attni_quantization {
    attni_block_numbers scale;
    attni_block_numbers zero;
} attni_quantization;

/* Weights to be dropped (attention/sdpa.h), and what is added to the numbers of their places. */
typedef struct attni_dropout {
    bool is_present;
    attni_dropout_stream stream; /* but for the batch */
    int64_t batch;
    int64_t head;
    int64_t row;
    int64_t column;
} attni_dropout;

/* A checked call. L = tgt_len, S = src_len, T = S + extra_cols, E = head_dim, Ev = value_dim. */
typedef struct attni_sdpa_problem {
    int32_t dtype;       /* of options and results, beside the score type: query's, or a layer's */
    int32_t score_dtype; /* of scores, sums and lse: float64 for float64, else float32 */
    bool has_heads;      /* else no tensor of the call has a head axis, nor have its options */
    int32_t batch_rank;
    int64_t batch_shape[ATTNI_MAX_BATCH_AXES];
    int64_t num_batches;
    int64_t call_batches; /* of all runs that are computed with this one (query_runs.h) */
    int64_t num_heads;
    int64_t key_group; /* query heads that share one key head */
    int64_t value_group;
    int64_t tgt_len;
    int64_t src_len;
    int64_t extra_cols; /* columns behind the S keys that every row sees: a layer's own */
    int64_t head_dim;
    int64_t value_dim;
    double scale;
    double softcap; /* 0: none */
    bool is_causal;
    bool aligns_end; /* the last row stands at the last key */
    int64_t window_left;
    int64_t window_right;
    int32_t normalizer;
    bool average_weights;
    bool rows_are_written; /* a row has elements of output, lse or weights to write */
    attni_operand query;
    attni_operand key;
    attni_operand value;
    attni_operand extra_key; /* rows of the extra columns: of the score type, their columns side by
                                side, wherever and as whatever keys and values lie */
    attni_operand extra_value;
    attni_operand output;
    attni_operand query_offset; /* batch axes only */
    attni_operand key_lengths;  /* batch axes only */
    attni_operand mask_start;   /* batch axes only; with it masks[ATTNI_MASK] is placed */
    attni_operand key_starts;   /* one more than sequences: their rows of key and value, which then
                                   have no batch axis; else absent */
    attni_operand query_starts; /* likewise of query and what is written, and of masks' rows; L is
                                   then the rows of all sequences */
    int64_t key_rows;           /* of key and value, those of all sequences with key_starts */
    attni_pages pages;
    attni_quantization key_quantization; /* of key, where its dtype is quantised: its strides then
                                            count elements, not values */
    attni_quantization value_quantization;
    int64_t first_batch; /* number of batch 0 in the whole call, which blocks of batches are counted
                            from */
    attni_operand alibi_slopes; /* head axis only */
    attni_operand sinks;        /* head axis only */
    attni_operand lse;
    attni_operand weights;
    attni_operand scores;
    int32_t score_stage; /* of scores, enum attn_score_stage */
    attni_dropout dropout;
    attni_mask masks[ATTNI_MAX_MASKS]; /* those with a kind are applied in order */
    attni_block_mask blocks; /* shows or hides, and says where masks[ATTNI_MASK] is asked */
} attni_sdpa_problem;

/* What an engine copies, in bits as attn_sdpa_report.packs. */
enum {
    ATTNI_PACKS_QUERY = ATTN_SDPA_PACK_QUERY,
    ATTNI_PACKS_KEY = ATTN_SDPA_PACK_KEY,
    ATTNI_PACKS_VALUE = ATTN_SDPA_PACK_VALUE,
    ATTNI_PACKS_OUTPUT = ATTN_SDPA_PACK_OUTPUT
};

#endif
