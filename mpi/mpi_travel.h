/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_travel.h: what goes round in a ring, and what a rank computes of it: its own rows over the
 * keys of one rank after the other, some rows at a time, so that messages are looked after.
 */
#ifndef ATTNI_MPI_TRAVEL_H
#define ATTNI_MPI_TRAVEL_H

#include "mpi_part.h"

/* A rank's keys and values as they travel, or their gradients: one tensor behind the other. */
typedef struct attni_mpi_travelling {
    attn_tensor key, value;
    int64_t bytes; /* a whole number of units; INT64_MAX if there are more */
} attni_mpi_travelling;

/* The keys and values of a rank at `data`. */
attni_mpi_travelling attni_mpi_travelling_keys(const attni_mpi_call *call, int rank, char *data);

/* Of their gradients those that are wanted, of the score type; the others take no room. */
attni_mpi_travelling attni_mpi_travelling_sums(const attni_mpi_call *call, int rank, char *data);

int attni_mpi_rank_before(const attni_mpi_link *link, int rank, int64_t steps);

/* How many blocks of keys come to each rank, its own included. The same on all ranks. */
int64_t attni_mpi_count_steps(const attni_mpi_call *call);

/* Makes scratch memory large enough for one part. */
typedef attn_status (*attni_mpi_part_plan_fn)(const attni_mpi_call *call,
                                              const attni_mpi_part *part, const attn_tensor *key,
                                              const attn_tensor *value,
                                              attni_mpi_part_scratch *scratch);

/* For all pieces of the calling rank's rows over the keys of all ranks. */
attn_status attni_mpi_plan_pieces(const attni_mpi_call *call, attni_mpi_part_plan_fn plan,
                                  attni_mpi_part_scratch *scratch);

/* Computes one piece. */
typedef attn_status (*attni_mpi_piece_fn)(void *state, const attni_mpi_part *piece);

/* Calls `compute` for the pieces of the calling rank's rows over the keys of `rank`, in order. What
 * no row sees is left out, but for the first of the rank's own stretches, which counts sinks. */
attn_status attni_mpi_visit_pieces(const attni_mpi_call *call, int rank, attni_mpi_piece_fn compute,
                                   void *state);

#endif
