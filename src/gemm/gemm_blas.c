/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_blas.c: the one file that calls BLAS, through a gate.
 */
#include <stdbool.h>

#include <attention/tensor.h>

#include "blas_library/blas_functions.h"
#include "blas_library/blas_gate.h"
#include "blas_library/blas_library.h"
#include "gemm/gemm.h"

/* CBLAS's own values. */
enum { CBLAS_ROW_MAJOR = 101, CBLAS_NO_TRANSPOSE = 111, CBLAS_TRANSPOSE = 112 };

bool attni_gemm_blas_is_usable(void) {
    return attni_blas_can_be_called() &&
           !(attni_blas_gate_is_inherited() && attni_blas_may_miss_its_threads());
}

void attni_gemm_blas(const attni_gemm_call *call) {
    const attni_blas_layout a = attni_blas_layout_of(&call->a, call->rows, call->inner);
    const attni_blas_layout b = attni_blas_layout_of(&call->b, call->inner, call->cols);
    const attni_blas_layout c = attni_blas_layout_of(&call->c, call->rows, call->cols);
    const int transpose_a = a.transposed ? CBLAS_TRANSPOSE : CBLAS_NO_TRANSPOSE;
    const int transpose_b = b.transposed ? CBLAS_TRANSPOSE : CBLAS_NO_TRANSPOSE;
    const int m = (int)call->rows;
    const int n = (int)call->cols;
    const int k = (int)call->inner;
    const attni_blas_functions *blas = attni_blas_functions_get(NULL); /* there: it is usable */
    attni_blas_gate_enter(attni_blas_max_callers());
    if (call->dtype == ATTN_DTYPE_FLOAT32) {
        blas->sgemm(CBLAS_ROW_MAJOR, transpose_a, transpose_b, m, n, k, (float)call->alpha,
                    (const float *)(const void *)call->a.data, a.leading_dimension,
                    (const float *)(const void *)call->b.data, b.leading_dimension,
                    (float)call->beta, (float *)(void *)call->c.data, c.leading_dimension);
    } else {
        blas->dgemm(CBLAS_ROW_MAJOR, transpose_a, transpose_b, m, n, k, call->alpha,
                    (const double *)(const void *)call->a.data, a.leading_dimension,
                    (const double *)(const void *)call->b.data, b.leading_dimension, call->beta,
                    (double *)(void *)call->c.data, c.leading_dimension);
    }
    attni_blas_gate_leave();
}
