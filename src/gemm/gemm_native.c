/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_native.c: the portable product: any strides, any alignment, any C compiler, sums in double.
 * It is the reference that BLAS is compared with in the tests, and what ATTN_GEMM_NATIVE asks for.
 *
 * B is copied tile by tile to a dense tile of doubles, which every row of the block of A then reads
 * along its rows.
 */
#include <string.h>

#include "base/checked_size.h"
#include "gemm/gemm.h"
#include "tensor/element.h"

enum { TILE_ROWS = 32, TILE_COLS = 32, TILE_INNER = 64 };

static double read_at(const attni_matrix *matrix, int64_t row, int64_t col, int32_t dtype) {
    return attni_read_real(matrix->data, row * matrix->row_stride + col * matrix->col_stride,
                           dtype);
}

/* tile[k][j] = B(first_inner + k, first_col + j); columns past the matrix are 0. */
static void load_tile(const attni_gemm_call *call, int64_t first_inner, int64_t inner,
                      int64_t first_col, int64_t cols, double tile[TILE_INNER][TILE_COLS]) {
    for (int64_t k = 0; k < inner; ++k) {
        for (int64_t j = 0; j < TILE_COLS; ++j) {
            tile[k][j] =
                j < cols ? read_at(&call->b, first_inner + k, first_col + j, call->dtype) : 0.0;
        }
    }
}

static void multiply_tile(const attni_gemm_call *call, int64_t first_row, int64_t rows,
                          int64_t first_inner, int64_t inner, double tile[TILE_INNER][TILE_COLS],
                          double sums[TILE_ROWS][TILE_COLS]) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t k = 0; k < inner; ++k) {
            const double a = read_at(&call->a, first_row + i, first_inner + k, call->dtype);
            for (int64_t j = 0; j < TILE_COLS; ++j) {
                sums[i][j] += a * tile[k][j];
            }
        }
    }
}

static void store_sums(const attni_gemm_call *call, int64_t first_row, int64_t rows,
                       int64_t first_col, int64_t cols, double sums[TILE_ROWS][TILE_COLS]) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) {
            const double product = call->alpha * sums[i][j];
            const double before = call->beta != 0 ? call->beta * read_at(&call->c, first_row + i,
                                                                         first_col + j, call->dtype)
                                                  : 0.0;
            const int64_t offset =
                (first_row + i) * call->c.row_stride + (first_col + j) * call->c.col_stride;
            attni_write_real(call->c.data, offset, call->dtype, before + product);
        }
    }
}

void attni_gemm_native(const attni_gemm_call *call) {
    double tile[TILE_INNER][TILE_COLS];
    double sums[TILE_ROWS][TILE_COLS];
    for (int64_t col = 0; col < call->cols; col += TILE_COLS) {
        const int64_t cols = attni_min(TILE_COLS, call->cols - col);
        for (int64_t row = 0; row < call->rows; row += TILE_ROWS) {
            const int64_t rows = attni_min(TILE_ROWS, call->rows - row);
            memset(sums, 0, sizeof sums);
            for (int64_t k = 0; k < call->inner; k += TILE_INNER) {
                const int64_t inner = attni_min(TILE_INNER, call->inner - k);
                load_tile(call, k, inner, col, cols, tile);
                multiply_tile(call, row, rows, k, inner, tile, sums);
            }
            store_sums(call, row, rows, col, cols, sums);
        }
    }
}
