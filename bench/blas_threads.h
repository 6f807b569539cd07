/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_threads.h: the threads of the BLAS that the library is linked with. The library leaves them
 * alone; a program that compares times with the limits of N threads must not.
 */
#ifndef ATTN_BENCH_BLAS_THREADS_H
#define ATTN_BENCH_BLAS_THREADS_H

/* Sets them where the BLAS is OpenBLAS or BLIS; does nothing with another, or if `threads`
 * is 0. */
void blas_threads_set(int threads);

/* How many they are; 0: unknown. */
int blas_threads_get(void);

#endif
