/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_problem.h: one attention call in canonical form, and the steps it goes through: check ->
 * plan -> run.
 *
 * The canonical axes are (batch axes..., head, row, column); every tensor of the call is a base
 * address and one stride for each of them, 0 where it repeats. Broadcasting, missing axes and
 * PyTorch's rank rules end in sdpa_check.c.
 */
#ifndef ATTNI_SDPA_SDPA_PROBLEM_H
#define ATTNI_SDPA_SDPA_PROBLEM_H

#include <attention/sdpa.h>

#include "base/workspace.h"
#include "context/context.h"
#include "sdpa/fused_plan.h"
#include "softmax/interval.h"
#include "softmax/mask.h"
#include "tensor/tensor_check.h"

enum { ATTNI_MAX_BATCH_AXES = ATTN_MAX_RANK - 3 };

/* The dense masks of a call, in the order in which they are applied. */
enum { ATTNI_BIAS, ATTNI_MASK, ATTNI_KEY_PADDING_MASK, ATTNI_MAX_MASKS };

/* A tensor of the call on the canonical axes; strides in elements. */
typedef struct attni_operand {
    char *data;
    int64_t strides[ATTN_MAX_RANK];
    int32_t dtype;
    bool is_present;
} attni_operand;

/* A checked call. L = tgt_len, S = src_len, T = S + extra_cols, E = head_dim, Ev = value_dim. */
typedef struct attni_sdpa_problem {
    int32_t dtype;
    int32_t batch_rank;
    int64_t batch_shape[ATTNI_MAX_BATCH_AXES];
    int64_t num_batches;
    int64_t num_heads;
    int64_t key_group; /* query heads that share one key head; 1 where the head axis broadcasts */
    int64_t value_group;
    int64_t tgt_len;
    int64_t src_len;
    int64_t extra_cols; /* columns behind the S keys that every row sees; key and value have S +
                           extra_cols rows */
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
    attni_operand query;
    attni_operand key;
    attni_operand value;
    attni_operand output;
    attni_operand query_offset; /* batch axes only */
    attni_operand key_lengths;  /* batch axes only */
    attni_operand alibi_slopes; /* head axis only */
    attni_operand sinks;        /* head axis only */
    attni_operand lse;
    attni_operand weights;
    attni_mask masks[ATTNI_MAX_MASKS]; /* those with a kind are applied in order */
    attn_sdpa_report *report;
} attni_sdpa_problem;

/* A call as it comes: from attn_sdpa, or from a layer that computes query, key and value itself. */
typedef struct attni_sdpa_request {
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *output;
    const attn_sdpa_params *params; /* already read by attni_sdpa_read_params */
    const char *option_prefix;      /* before the options' names in messages: "" or "attention." */
    attni_data_rule tensor_data;    /* of query, key, value, output */
    attni_data_rule option_data;    /* of everything in params */
    int64_t extra_cols;
} attni_sdpa_request;

/* How a call will run. Depends on shapes, strides, options and the context, never on values, nor on
 * the number of threads but for how many pieces of scratch memory there are. */
typedef struct attni_sdpa_plan {
    int32_t engine;
    int32_t gemm;
    int32_t packs; /* as attn_sdpa_report.packs */
    int64_t row_block;
    int64_t num_blocks;
    bool is_parallel;   /* blocks are large enough for the context's threads */
    int64_t score_cols; /* columns of a block of scores */
    size_t scores_offset;
    size_t empty_offset; /* one byte for each row of a block: whether it sees nothing */
    size_t key_offset;
    size_t value_offset;
    size_t output_offset;
    size_t gemm_offset;
    attni_fused_plan fused; /* of the fused engine; the fields from is_parallel to gemm_offset are
                               the BLAS engine's */
    attni_layout layout;
    const char *reason;
} attni_sdpa_plan;

/* Bits of attni_sdpa_plan.packs. */
enum {
    ATTNI_PACKS_QUERY = ATTN_SDPA_PACK_QUERY,
    ATTNI_PACKS_KEY = ATTN_SDPA_PACK_KEY,
    ATTNI_PACKS_VALUE = ATTN_SDPA_PACK_VALUE,
    ATTNI_PACKS_OUTPUT = ATTN_SDPA_PACK_OUTPUT
};

/* sdpa_options.c: reads the caller's struct of any version into today's. `name` is the argument,
 * for messages. */
attn_status attni_sdpa_read_params(const char *name, const attn_sdpa_params *given,
                                   attn_sdpa_params *params);

/* sdpa_options.c: everything in params, given the sizes and batch axes in *problem; fills the rest
 * of it. */
attn_status attni_sdpa_check_options(const attni_sdpa_request *request,
                                     attni_sdpa_problem *problem);

/* sdpa_check.c: every argument error of the call but overlap. */
attn_status attni_sdpa_check(const attni_sdpa_request *request, attni_sdpa_problem *problem);

/* sdpa_plan.c */
attn_status attni_sdpa_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                 attni_sdpa_plan *plan);
attn_sdpa_report attni_sdpa_report_of(const attn_context *context, const attni_sdpa_plan *plan);

/* sdpa_run.c: computes; `scratch` is a block of the plan's layout. */
attn_status attni_sdpa_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_sdpa_plan *plan, char *scratch);

/* batch_visibility.c: reads query_offset and key_lengths. */
attni_visibility attni_batch_visibility(const attni_sdpa_problem *problem, int64_t batch);

/* engine_blas.c. Counts the blocks it computed into *num_blocks. */
attn_status attni_engine_blas_run(attn_context *context, const attni_sdpa_problem *problem,
                                  const attni_sdpa_plan *plan, char *scratch, int64_t *num_blocks);

/* fused_plan.c: what the fused engine needs of a plan. */
attn_status attni_fused_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                  attni_sdpa_plan *plan);

/* engine_fused.c: as attni_engine_blas_run, for float32. */
attn_status attni_engine_fused_run(attn_context *context, const attni_sdpa_problem *problem,
                                   const attni_sdpa_plan *plan, char *scratch, int64_t *num_blocks);

#endif
