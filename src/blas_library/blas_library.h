/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_library.h: what the BLAS found at run time says of itself. It may be another one than at
 * build time: Debian's alternatives swap OpenBLAS's builds, BLIS and the reference BLAS behind one
 * name. The shared library loads it for the first of these questions but attni_blas_present; where
 * it cannot, the answers are those of an unknown library.
 */
#ifndef ATTNI_BLAS_LIBRARY_BLAS_LIBRARY_H
#define ATTNI_BLAS_LIBRARY_BLAS_LIBRARY_H

#include <stdbool.h>

/* Whether this build has a BLAS at all. */
bool attni_blas_present(void);

/* Whether it has one and that can be had in this process. */
bool attni_blas_can_be_called(void);

/* Callers the BLAS may have at once: 1 for a build without threads of its own, which OpenBLAS does
 * not protect against concurrent callers (wrong results, measured), and for an unknown library;
 * else 64, beyond which OpenBLAS runs out of buffers and crashes. */
int attni_blas_max_callers(void);

/* Whether its float32 product may touch memory outside its matrices. That of BLIS 0.9 does on AVX2
 * processors (measured between pages without access: a row more of A, and past C), and under the
 * name libblas.so.3 BLIS does not tell that it is one. So: unless it is OpenBLAS. */
bool attni_blas_may_stray_in_float32(void);

/* Whether its product may take 0 times NaN or infinity for 0. That of BLIS 0.9 does (measured, for
 * some shapes and layouts), and does not always tell its name: so, unless it is OpenBLAS. */
bool attni_blas_may_lose_nan(void);

/* Whether, in a forked child, it may wait for threads that only its parent has: what GNU's OpenMP
 * does (measured: for ever). Only an OpenBLAS that says it has POSIX threads, which it starts anew,
 * or none, may not. */
bool attni_blas_may_miss_its_threads(void);

/* What it is, in its own words; static memory. */
const char *attni_blas_description(void);

/* Why it cannot be used (it cannot be loaded; an ILP64 build, whose integers are not int), or NULL.
 * Static memory. */
const char *attni_blas_problem(void);

#endif
