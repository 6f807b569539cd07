/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_placement.h: where the rows of each rank stand in the whole.
 */
#ifndef ATTNI_MPI_PLACEMENT_H
#define ATTNI_MPI_PLACEMENT_H

#include <stdint.h>

/* Rows of a rank that stand side by side in the whole. */
typedef struct attni_mpi_stretch {
    int64_t first; /* of the whole */
    int64_t local; /* the same row, of the rank's own */
    int64_t count; /* 0 and up */
} attni_mpi_stretch;

enum { ATTNI_MPI_STRETCHES = 2 };

/* A rank's rows: one stretch after the other. Of contiguous rows the second one is empty. */
typedef struct attni_mpi_place {
    attni_mpi_stretch stretches[ATTNI_MPI_STRETCHES];
} attni_mpi_place;

/* The places of num_ranks ranks with so many rows each, lengths[rank * step]; `placement` is an
 * enum attn_mpi_placement. Returns the length of the whole, INT64_MAX if that is more. */
int64_t attni_mpi_place_rows(int32_t placement, int num_ranks, const int64_t *lengths, int step,
                             attni_mpi_place *places);

/* All ranks have all of so many rows. */
void attni_mpi_place_everywhere(int num_ranks, int64_t length, attni_mpi_place *places);

#endif
