/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_ring_backward.h: keys and values go round once more, and the sums of their gradients behind
 * them, which come home at the end.
 */
#ifndef ATTNI_MPI_RING_BACKWARD_H
#define ATTNI_MPI_RING_BACKWARD_H

#include "mpi_gradient_part.h"

typedef struct attni_mpi_ring_backward {
    int64_t num_steps;  /* blocks that come to each rank, its own included */
    int64_t bytes_sent; /* by the calling rank */
    int64_t
        blocks_at[2]; /* keys and values: one is computed and sent on from while the other fills */
    int64_t sums_at[2]; /* sums of others' keys that came, likewise */
    int64_t part_at;    /* what this rank adds to them */
    int64_t home_at;    /* sums of the rank's own keys */
    attni_mpi_sinks_part sinks;
    attni_mpi_part_scratch scratch;
} attni_mpi_ring_backward;

/* Appends the ring's memory to the layout, behind that of the sums. */
attn_status attni_mpi_ring_backward_plan(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                         attni_mpi_layout *layout, attni_mpi_ring_backward *ring);

/* Collective. Completes the sums of the calling rank. A rank whose own part of the work has failed
 * goes on passing blocks; *status tells that, the returned one failures of MPI. */
attn_status attni_mpi_ring_backward_run(const attni_mpi_call *call,
                                        const attni_mpi_ring_backward *ring,
                                        const attni_mpi_sums *sums, char *block,
                                        attn_status *status);

#endif
