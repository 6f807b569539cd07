/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_functions.h: the functions of the BLAS, as data. Two files can fill the table, and each form
 * of the library has one of them: blas_linked.c names them, for the linker to find; blas_loaded.c,
 * in the shared library, takes the table of a module, which is blas_linked.c in a file of its own
 * (attention-0/blas.so beside the library). So what a program pays for a BLAS, its threads and
 * memory and time at the start, it pays once it needs it.
 */
#ifndef ATTNI_BLAS_LIBRARY_BLAS_FUNCTIONS_H
#define ATTNI_BLAS_LIBRARY_BLAS_FUNCTIONS_H

#include <stddef.h>

typedef void attni_sgemm_function(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                                  float alpha, const float *a, int lda, const float *b, int ldb,
                                  float beta, float *c, int ldc);
typedef void attni_dgemm_function(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                                  double alpha, const double *a, int lda, const double *b, int ldb,
                                  double beta, double *c, int ldc);

typedef struct attni_blas_functions {
    size_t struct_size; /* a module of another release may have another table */
    attni_sgemm_function *sgemm;
    attni_dgemm_function *dgemm;
    /* What only some libraries have, else NULL. */
    char *(*openblas_get_config)(void);
    int (*openblas_get_parallel)(void);
    char *(*bli_info_get_version_str)(void);
} attni_blas_functions;

/* The table, or NULL where the BLAS cannot be had; then *why, unless `why` is NULL, is the reason,
 * in static memory. The same answer for the whole life of the process. The module has it too, under
 * this name. */
const attni_blas_functions *attni_blas_functions_get(const char **why);

#endif
