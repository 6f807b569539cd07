/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_link.h: what is kept of a communicator from call to call.
 */
#ifndef ATTNI_MPI_LINK_H
#define ATTNI_MPI_LINK_H

#include <stdint.h>

#include "mpi_agreement.h"
#include "mpi_placement.h"

/* Messages are counted in units of so many bytes, so that MPI's int counts 128 GiB. */
enum { ATTNI_MPI_UNIT_BYTES = 64 };

/* What a rank tells all others of its lengths in each call. */
enum { ATTNI_MPI_QUERY_ROWS, ATTNI_MPI_KEY_ROWS, ATTNI_MPI_NUM_LENGTHS };

/* Behind the struct lie its tables, each of num_ranks entries, of the call under way. */
typedef struct attni_mpi_link {
    attni_mpi_group
        group;         /* its communicator duplicates the caller's: our messages meet no others */
    MPI_Datatype unit; /* ATTNI_MPI_UNIT_BYTES bytes */
    attni_mpi_place *query_places, *key_places;
    int64_t (*lengths)[ATTNI_MPI_NUM_LENGTHS];
} attni_mpi_link;

/*
 * The link of a communicator, made at the first call with it and freed with it; collective then.
 * Its duplicate has the communicator's error handler. Fails with ATTN_MPI_ERROR_STATE, which is a
 * rank's own affair, with ATTN_ERROR_MEMORY on all ranks, or ATTN_MPI_ERROR_MPI.
 */
attn_status attni_mpi_link_of(MPI_Comm comm, attni_mpi_link **link);

#endif
