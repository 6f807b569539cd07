/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_decode.h: queries are everywhere, keys and values stay, partial results go to all.
 */
#ifndef ATTNI_MPI_DECODE_H
#define ATTNI_MPI_DECODE_H

#include "mpi_part.h"

typedef struct attni_mpi_decode {
    int64_t bytes_sent;           /* a rank's partial result, to each of the others */
    int64_t partial_bytes;        /* output and lse of one rank */
    int64_t lse_at;               /* within that */
    int64_t gathered_at;          /* (num_ranks, partial_bytes), the rank's own in its place */
    int64_t part_at, part_lse_at; /* of a second stretch; in the end, what is stored */
    int64_t outputs_at, lses_at;  /* (num_ranks) views of what is gathered */
    attni_mpi_part_scratch scratch;
} attni_mpi_decode;

/* Appends the memory of the scheme to the layout. */
attn_status attni_mpi_decode_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                  attni_mpi_decode *decode);

/* Collective. Leaves the results in the block, as *stored says, the same on all ranks. */
attn_status attni_mpi_decode_run(const attni_mpi_call *call, const attni_mpi_decode *decode,
                                 char *block, attni_mpi_partial *stored);

#endif
