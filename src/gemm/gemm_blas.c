/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_blas.c: the one file that calls BLAS, through a gate.
 */
#include <stdbool.h>

#include <attention/tensor.h>

#include "base/blas_library.h"
#include "gemm/blas_gate.h"
#include "gemm/gemm.h"

#define JOIN_WORDS(prefix, name, suffix) prefix##name##suffix
#define BLAS_SYMBOL_EXPANDED(prefix, name, suffix) JOIN_WORDS(prefix, name, suffix)
#define BLAS_SYMBOL(name) BLAS_SYMBOL_EXPANDED(ATTNI_BLAS_PREFIX, name, ATTNI_BLAS_SUFFIX)

/* CBLAS's own values. They are declared here, not taken from cblas.h, because BLAS packages
 * disagree on where that header is and vendored builds rename the functions in it. */
enum { CBLAS_ROW_MAJOR = 101, CBLAS_NO_TRANSPOSE = 111, CBLAS_TRANSPOSE = 112 };

void BLAS_SYMBOL(cblas_sgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                              float alpha, const float *a, int lda, const float *b, int ldb,
                              float beta, float *c, int ldc);
void BLAS_SYMBOL(cblas_dgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                              double alpha, const double *a, int lda, const double *b, int ldb,
                              double beta, double *c, int ldc);

bool attni_gemm_blas_is_usable(void) {
    return !(attni_blas_gate_is_inherited() && attni_blas_may_miss_its_threads());
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
    attni_blas_gate_enter(attni_blas_max_callers());
    if (call->dtype == ATTN_DTYPE_FLOAT32) {
        BLAS_SYMBOL(cblas_sgemm)
        (CBLAS_ROW_MAJOR, transpose_a, transpose_b, m, n, k, (float)call->alpha,
         (const float *)(const void *)call->a.data, a.leading_dimension,
         (const float *)(const void *)call->b.data, b.leading_dimension, (float)call->beta,
         (float *)(void *)call->c.data, c.leading_dimension);
    } else {
        BLAS_SYMBOL(cblas_dgemm)
        (CBLAS_ROW_MAJOR, transpose_a, transpose_b, m, n, k, call->alpha,
         (const double *)(const void *)call->a.data, a.leading_dimension,
         (const double *)(const void *)call->b.data, b.leading_dimension, call->beta,
         (double *)(void *)call->c.data, c.leading_dimension);
    }
    attni_blas_gate_leave();
}
