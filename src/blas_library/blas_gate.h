/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_gate.h: who may be inside BLAS: no more callers at once than the library found at run time
 * can take, nobody while the process forks, and in some forked children nobody at all.
 */
#ifndef ATTNI_BLAS_LIBRARY_BLAS_GATE_H
#define ATTNI_BLAS_LIBRARY_BLAS_GATE_H

#include <stdbool.h>

/* Waits until there is room. Each is followed by attni_blas_gate_leave on the same thread. */
void attni_blas_gate_enter(int most_callers);
void attni_blas_gate_leave(void);

/* Whether this process was forked from one that had been inside BLAS. */
bool attni_blas_gate_is_inherited(void);

#endif
