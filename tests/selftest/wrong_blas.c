/* SPDX-License-Identifier: BSD-3-Clause
 *
 * wrong_blas.c: a library loaded before the BLAS, whose dgemm forgets what is to be added to.
 */
#define JOIN_WORDS(prefix, name, suffix) prefix##name##suffix
#define BLAS_SYMBOL_EXPANDED(prefix, name, suffix) JOIN_WORDS(prefix, name, suffix)
#define BLAS_SYMBOL(name) BLAS_SYMBOL_EXPANDED(ATTNI_BLAS_PREFIX, name, ATTNI_BLAS_SUFFIX)

enum { TRANSPOSE = 112 };

void BLAS_SYMBOL(cblas_dgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                              double alpha, const double *a, int lda, const double *b, int ldb,
                              double beta, double *c, int ldc);

void BLAS_SYMBOL(cblas_dgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                              double alpha, const double *a, int lda, const double *b, int ldb,
                              double beta, double *c, int ldc) {
    (void)layout, (void)beta;
    for (int row = 0; row < m; ++row) {
        for (int col = 0; col < n; ++col) {
            double sum = 0;
            for (int i = 0; i < k; ++i) {
                sum += a[transpose_a == TRANSPOSE ? i * lda + row : row * lda + i] *
                       b[transpose_b == TRANSPOSE ? col * ldb + i : i * ldb + col];
            }
            c[row * ldc + col] = alpha * sum;
        }
    }
}
