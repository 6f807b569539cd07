/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_heads.h: all rows of some heads on each rank, by all-to-all before and after. (Jacobs et al.,
 * DeepSpeed-Ulysses, 2023.)
 */
#ifndef ATTNI_MPI_HEADS_H
#define ATTNI_MPI_HEADS_H

#include "mpi_deal.h"
#include "mpi_part.h"

typedef struct attni_mpi_heads {
    attni_mpi_dealing dealing;
    attni_mpi_deal there, back;       /* query, key and value; output and lse */
    int64_t stored_at, stored_lse_at; /* the rank's rows of all heads */
    int64_t workspace_at, workspace_bytes;
} attni_mpi_heads;

/* Appends the memory of the scheme to the layout. */
attn_status attni_mpi_heads_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                 attni_mpi_heads *heads);

/* Collective. Leaves the results in the block, as *stored says. */
attn_status attni_mpi_heads_run(const attni_mpi_call *call, attni_mpi_heads *heads, char *block,
                                attni_mpi_partial *stored);

#endif
