/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_ring.h: keys and values go round, partial results stay. (Liu, Zaharia and Abbeel, 2023.)
 */
#ifndef ATTNI_MPI_RING_H
#define ATTNI_MPI_RING_H

#include "mpi_part.h"

typedef struct attni_mpi_ring {
    int64_t num_steps;    /* blocks that come to each rank, its own included */
    int64_t bytes_sent;   /* by the calling rank */
    int64_t blocks_at[2]; /* a block is computed and sent on from one while the other fills */
    int64_t sum_at, sum_lse_at;
    int64_t part_at, part_lse_at; /* one part's result; in the end, what is stored */
    attni_mpi_part_scratch scratch;
} attni_mpi_ring;

/* Appends the ring's memory to the layout, which depends on shapes alone. */
attn_status attni_mpi_ring_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                attni_mpi_ring *ring);

/* Collective. Leaves the results in the block, as *stored says. A rank whose own part of the work
 * has failed goes on passing blocks. */
attn_status attni_mpi_ring_run(const attni_mpi_call *call, const attni_mpi_ring *ring, char *block,
                               attni_mpi_partial *stored);

#endif
