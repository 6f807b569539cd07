/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_matrices.h: the matrices of the batch, head and block at hand.
 */
#ifndef ATTNI_BLAS_BLAS_MATRICES_H
#define ATTNI_BLAS_BLAS_MATRICES_H

#include "blas/blas_state.h"
#include "problem/source_rows.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

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

static inline attni_matrix attni_matrix_of(attni_source_rows rows) {
    return (attni_matrix){
        .data = rows.data, .row_stride = rows.row_stride, .col_stride = rows.col_stride};
}

/* An operand that has every query head. */
static inline attni_matrix attni_operand_matrix(const attni_blas_engine *engine,
                                                const attni_operand *operand, int64_t head) {
    return attni_matrix_of(attni_operand_rows(engine->problem, operand, engine->batch, head, 0));
}

static inline attni_strided_matrix attni_matrix_layout(const attni_matrix *matrix) {
    return (attni_strided_matrix){matrix->data, matrix->row_stride, matrix->col_stride};
}

/* Row `row` of an operand's matrix, which may not be of the score type. */
static inline attni_matrix attni_stored_rows(const attni_operand *operand, attni_matrix matrix,
                                             int64_t row) {
    matrix.data = attni_advance(matrix.data, row * matrix.row_stride * operand->element_bytes);
    return matrix;
}

/* Rows of an operand as the score type, side by side. */
static inline void attni_widen_rows(const attni_blas_engine *engine, const attni_operand *operand,
                                    attni_matrix from, int64_t rows, int64_t cols, char *to) {
    const attni_strided_matrix dense = {to, cols, 1};
    if (operand->dtype == engine->problem->score_dtype) {
        attni_copy_matrix(dense, attni_matrix_layout(&from), rows, cols, (size_t)engine->element);
        return;
    }
    const attni_storage_kernels *storage = attni_storage_kernels_of(engine->set, operand->dtype);
    for (int64_t row = 0; row < rows; ++row) {
        const attni_matrix stored = attni_stored_rows(operand, from, row);
        storage->widen((float *)(void *)(to + row * cols * engine->element), stored.data,
                       stored.col_stride, cols);
    }
}

/* The inverse: numbers of the score type, side by side, to rows of an operand. */
static inline void attni_narrow_rows(const attni_blas_engine *engine, const attni_operand *operand,
                                     attni_matrix to, int64_t rows, int64_t cols,
                                     const char *from) {
    const attni_strided_matrix dense = {(char *)(uintptr_t)from, cols, 1};
    if (operand->dtype == engine->problem->score_dtype) {
        attni_copy_matrix(attni_matrix_layout(&to), dense, rows, cols, (size_t)engine->element);
        return;
    }
    const attni_storage_kernels *storage = attni_storage_kernels_of(engine->set, operand->dtype);
    for (int64_t row = 0; row < rows; ++row) {
        const attni_matrix stored = attni_stored_rows(operand, to, row);
        storage->narrow(stored.data, stored.col_stride,
                        (const float *)(const void *)(from + row * cols * engine->element), cols);
    }
}

static inline int64_t attni_block_cols(const attni_blas_engine *engine) {
    return engine->block_keys.end - engine->block_keys.begin;
}

/* Scores of block row `row` for its first key or, past all keys, its extra columns. */
static inline char *attni_scores_at(const attni_blas_engine *engine, int64_t row, int64_t col) {
    return engine->scores + (row * engine->plan->score_cols + col) * engine->element;
}

#endif
