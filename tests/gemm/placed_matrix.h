/* SPDX-License-Identifier: BSD-3-Clause
 *
 * placed_matrix.h: batches of matrices in every layout a caller may have, and their product the
 * slow way.
 *
 * A matrix's memory reaches exactly from its lowest to its highest element, with margins for one
 * that is written; what lies between the elements is NaN, so that a stray read shows in the result
 * and a stray write in the comparison of all bytes.
 */
#ifndef TESTS_GEMM_PLACED_MATRIX_H
#define TESTS_GEMM_PLACED_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemm/gemm.h"
#include "support/random.h"

enum matrix_layout {
    ROW_MAJOR,
    COLUMN_MAJOR,
    WIDE_ROWS,         /* gaps between the rows */
    WIDE_COLUMNS,      /* column-major with gaps */
    STRIDED_BOTH,      /* gaps between the elements of a row, too */
    REVERSED_ROWS,     /* last row first in memory */
    REVERSED_COLUMNS,  /* last column first */
    INTERLEAVED_BATCH, /* row r of every batch before row r + 1 of any */
    UNALIGNED,         /* row-major, one byte off */
    NUM_OUTPUT_LAYOUTS,
    REPEATED_ROW = NUM_OUTPUT_LAYOUTS, /* stride 0 */
    REPEATED_COLUMN,
    REPEATED_BATCH,
    NUM_LAYOUTS
};

typedef struct placed_matrix {
    attni_matrix view;
    int32_t dtype;
    int64_t batch;
    int64_t rows;
    int64_t cols;
    char *memory;
    size_t bytes;
} placed_matrix;

/* The elements are not set yet: they are NaN as all bytes are. Freed by matrix_free. */
placed_matrix matrix_place(enum matrix_layout layout, int32_t dtype, int64_t batch, int64_t rows,
                           int64_t cols, bool is_output);
void matrix_free(placed_matrix *matrix);

double matrix_get(const placed_matrix *matrix, int64_t batch, int64_t row, int64_t col);
void matrix_set(placed_matrix *matrix, int64_t batch, int64_t row, int64_t col, double value);

/* Every element a random integer from -most to most. */
void matrix_fill_integers(placed_matrix *matrix, random_state *random, int64_t most);

/* Every element in [-1, 1). */
void matrix_fill_reals(placed_matrix *matrix, random_state *random);

/* A product to be computed: what gemm.h needs, and what it must have become. */
typedef struct gemm_case {
    attni_gemm_call call;
    placed_matrix a;
    placed_matrix b;
    placed_matrix c;
} gemm_case;

typedef struct gemm_layouts {
    enum matrix_layout a;
    enum matrix_layout b;
    enum matrix_layout c;
} gemm_layouts;

/* Matrices for the sizes and numbers of `call`, whose own matrices are ignored; a and b hold
 * integers, c NaN if beta is 0. The kernels are the CPU's best if the call names none. */
gemm_case gemm_case_make(const attni_gemm_call *call, gemm_layouts layouts, random_state *random);
void gemm_case_free(gemm_case *item);

/* A copy of c's memory in which the product of integers has been written, exactly. Freed by the
 * caller. */
char *gemm_case_expected(const gemm_case *item);

/* Fails the test unless all of c's memory is `expected`. */
void gemm_case_assert(const gemm_case *item, const char *expected);

/* Runs the product with exactly the scratch memory it asks for, cut at `limit`; fails the test if
 * bytes around that are written. */
void gemm_case_run(const gemm_case *item, int64_t limit);

/* "float32 blas, 3 x (5 x 7) = (5 x 2) (2 x 7), ...", for messages; static memory. */
const char *gemm_case_text(const gemm_case *item);

#endif
