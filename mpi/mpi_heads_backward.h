/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_heads_backward.h: all rows of some heads on each rank, by all-to-all of all that a backward
 * pass reads, and all-to-all back of gradients.
 */
#ifndef ATTNI_MPI_HEADS_BACKWARD_H
#define ATTNI_MPI_HEADS_BACKWARD_H

#include "mpi_deal.h"
#include "mpi_sums.h"

typedef struct attni_mpi_heads_backward {
    attni_mpi_dealing dealing;
    attni_mpi_deal there; /* query, key, value, output and its gradient, lse and its gradient */
    attni_mpi_deal back;  /* gradients of query, key and value that are wanted */
    int64_t workspace_at, workspace_bytes;
} attni_mpi_heads_backward;

/* Appends the memory of the scheme to the layout, behind that of the sums. */
attn_status attni_mpi_heads_backward_plan(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                          attni_mpi_layout *layout,
                                          attni_mpi_heads_backward *heads);

/* Collective. Completes the sums of the calling rank but for what is shared. *status: of the rank's
 * own work; the returned one: of MPI. */
attn_status attni_mpi_heads_backward_run(const attni_mpi_call *call,
                                         attni_mpi_heads_backward *heads,
                                         const attni_mpi_sums *sums, char *block,
                                         attn_status *status);

#endif
