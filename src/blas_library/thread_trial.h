/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread_trial.h: whether a BLAS that is about to be loaded will get its threads. OpenBLAS starts
 * them while it is loaded, and ends the process where one is refused (0.3.21: SIGINT).
 */
#ifndef ATTNI_BLAS_LIBRARY_THREAD_TRIAL_H
#define ATTNI_BLAS_LIBRARY_THREAD_TRIAL_H

#include <stdbool.h>

/* Starts as many threads at once as OpenBLAS would, and ends them: one less than its environment
 * says (OPENBLAS_NUM_THREADS, GOTO_NUM_THREADS, OMP_NUM_THREADS), and than the caller has CPUs. */
bool attni_can_start_blas_threads(void);

#endif
