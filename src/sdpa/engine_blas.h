/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_blas.h: the state that the two halves of the BLAS engine share: products (engine_blas.c)
 * and rows (engine_blas_rows.c).
 */
#ifndef ATTNI_SDPA_ENGINE_BLAS_H
#define ATTNI_SDPA_ENGINE_BLAS_H

#include "gemm/gemm.h"
#include "sdpa/sdpa_problem.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* The state of one call, from the outermost loop inwards. */
typedef struct attni_blas_engine {
    attn_context *context;
    const attni_sdpa_problem *problem;
    const attni_sdpa_plan *plan;
    const attni_row_kernels *kernels;
    int64_t element; /* bytes */
    char *scores;
    unsigned char *empty;
    char *gemm_scratch;
    char *packed_key;
    char *packed_value;
    char *output_block;

    /* one batch and head */
    int64_t batch;
    int64_t head;
    attni_visibility visibility;
    attni_interval seen; /* keys that some row sees */
    attni_matrix query;
    attni_matrix key; /* row j is key seen.begin + j; extra columns' rows follow in extra_key */
    attni_matrix value;
    attni_matrix extra_key;
    attni_matrix extra_value;
    attni_matrix output;
    const char *key_packed_from; /* what packed_key holds a copy of, or NULL */
    const char *value_packed_from;

    /* one block of rows */
    int64_t first_row;
    int64_t num_rows;
    attni_interval block_keys; /* keys that some row of the block sees: the columns of its scores,
                                  the extra ones after them */
    char *block_output;        /* where rows of the block's output are added up */
    int64_t block_output_stride;
} attni_blas_engine;

static inline int64_t attni_operand_offset(const attni_blas_engine *engine,
                                           const attni_operand *operand, int64_t head) {
    const attni_sdpa_problem *problem = engine->problem;
    return attni_offset_of(engine->batch, problem->batch_rank, problem->batch_shape,
                           operand->strides) +
           head * operand->strides[problem->batch_rank];
}

/* A matrix moved on by some elements; that of an empty tensor has no address to move. */
static inline attni_matrix attni_moved(const attni_blas_engine *engine, attni_matrix matrix,
                                       int64_t elements) {
    matrix.data = attni_advance(matrix.data, elements * engine->element);
    return matrix;
}

static inline attni_matrix attni_rows_from(const attni_blas_engine *engine, attni_matrix matrix,
                                           int64_t row) {
    return attni_moved(engine, matrix, row * matrix.row_stride);
}

static inline attni_matrix attni_operand_matrix(const attni_blas_engine *engine,
                                                const attni_operand *operand, int64_t head) {
    const int32_t row_axis = engine->problem->batch_rank + 1;
    const attni_matrix first = {
        .data = operand->data,
        .row_stride = operand->strides[row_axis],
        .col_stride = operand->strides[row_axis + 1],
    };
    return attni_moved(engine, first, attni_operand_offset(engine, operand, head));
}

static inline attni_strided_matrix attni_matrix_layout(const attni_matrix *matrix) {
    return (attni_strided_matrix){matrix->data, matrix->row_stride, matrix->col_stride};
}

static inline int64_t attni_block_cols(const attni_blas_engine *engine) {
    return engine->block_keys.end - engine->block_keys.begin;
}

/* Scores of block row `row` for its first key or, past all keys, its extra columns. */
static inline char *attni_scores_at(const attni_blas_engine *engine, int64_t row, int64_t col) {
    return engine->scores + (row * engine->plan->score_cols + col) * engine->element;
}

/* engine_blas_rows.c: turns row `index` of the block from scores into weights and hands out what
 * the caller asked for. */
void attni_weigh_row(const attni_blas_engine *engine, int64_t index);

/* engine_blas_rows.c: sets the weights output of a head to 0: hidden positions stay so, and
 * averages are added up head by head. */
void attni_clear_weights(const attni_blas_engine *engine, int64_t head);

#endif
