/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_state.h: the state that the files of the BLAS engine share, as data and nothing else.
 */
#ifndef ATTNI_BLAS_BLAS_STATE_H
#define ATTNI_BLAS_BLAS_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "context/context.h"
#include "gemm/gemm.h"
#include "problem/batch_sequence.h"
#include "problem/sdpa_problem.h"

/* How a call is cut into blocks of rows, and where their pieces of scratch memory are. */
typedef struct attni_blas_plan {
    int32_t gemm;
    int32_t packs; /* ATTNI_PACKS_QUERY and so on */
    int64_t row_block;
    int64_t num_blocks;
    bool is_parallel;   /* blocks are large enough for the context's threads */
    int64_t score_cols; /* columns of a block of scores */
    bool widens_query;  /* query is not of the score type: a block of it is copied */
    bool sums_averages; /* averaged weights are not of the score type: they are summed apart */
    size_t scores_offset;
    size_t empty_offset; /* one byte for each row of a block: whether it sees nothing */
    size_t query_offset;
    size_t averages_offset; /* of one batch, (L, score_cols) */
    size_t key_offset;
    size_t value_offset;
    size_t output_offset;
    size_t gemm_offset;
} attni_blas_plan;

/* The state of one call, from the outermost loop inwards. Everything is computed in the score type;
 * operands of another are copied. */
typedef struct attni_blas_engine {
    attn_context *context;
    const attni_sdpa_problem *problem;
    const attni_blas_plan *plan;
    const attni_kernel_set *set;
    const attni_row_kernels *kernels; /* of the set, for the score type */
    int64_t element;                  /* bytes of the score type */
    char *scores;
    unsigned char *empty;
    char *gemm_scratch;
    char *packed_query;
    char *averages;
    char *packed_key;
    char *packed_value;
    char *output_block;

    /* one batch and head */
    int64_t batch;
    int64_t head;
    attni_sequence sequence;
    attni_interval seen; /* keys that some row sees */
    attni_matrix query;
    attni_matrix key; /* row j is key seen.begin + j */
    attni_matrix value;
    attni_matrix extra_key;
    attni_matrix extra_value;
    attni_matrix output;
    const char *key_packed_from; /* what packed_key holds a copy of, or NULL */
    const char *value_packed_from;

    /* one block of rows */
    int64_t first_row;
    int64_t num_rows;
    attni_matrix block_query;
    attni_interval block_keys; /* keys that some row of the block sees: the columns of its scores,
                                  the extra ones after them */
    char *block_output;        /* where rows of the block's output are added up */
    int64_t block_output_stride;
} attni_blas_engine;

#endif
