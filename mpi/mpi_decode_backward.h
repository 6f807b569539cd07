/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_decode_backward.h: queries, outputs and their gradients are everywhere, keys and theirs stay.
 */
#ifndef ATTNI_MPI_DECODE_BACKWARD_H
#define ATTNI_MPI_DECODE_BACKWARD_H

#include "mpi_gradient_part.h"

typedef struct attni_mpi_decode_backward {
    attni_mpi_sinks_part sinks;
    attni_mpi_part_scratch scratch;
} attni_mpi_decode_backward;

/* Appends what the scheme needs beside the sums. */
attn_status attni_mpi_decode_backward_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                           attni_mpi_decode_backward *decode);

/* The calling rank's terms of the sums: nothing travels before these are shared. */
attn_status attni_mpi_decode_backward_run(const attni_mpi_call *call,
                                          const attni_mpi_decode_backward *decode,
                                          const attni_mpi_sums *sums, char *block);

#endif
