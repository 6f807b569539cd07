/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_heads.h: all rows of some heads on each rank, by all-to-all before and after. (Jacobs et al.,
 * DeepSpeed-Ulysses, 2023.)
 */
#ifndef ATTNI_MPI_HEADS_H
#define ATTNI_MPI_HEADS_H

#include "mpi_part.h"

/* Heads that one rank attends: of the query, and of key and value those they share. */
typedef struct attni_mpi_head_range {
    int64_t first, count;
} attni_mpi_head_range;

typedef struct attni_mpi_heads {
    int64_t num_units;            /* smallest sets of heads that can be apart */
    int64_t bytes_sent;           /* there and back */
    int64_t sent_at, received_at; /* packed rows of heads, by rank */
    int64_t query_at, key_at, value_at, output_at, lse_at; /* all rows of the rank's heads */
    int64_t stored_at, stored_lse_at;                      /* the rank's rows of all heads */
    int64_t counts_at; /* (4, num_ranks) ints: counts and places of both ways */
    int64_t workspace_at, workspace_bytes;
} attni_mpi_heads;

/* How many units a call's heads are. 1: the scheme is of no use, but right. */
int64_t attni_mpi_heads_units(const attni_mpi_call *call);

/* Units of the rank that has most. */
int64_t attni_mpi_heads_most_units(const attni_mpi_call *call);

/* Appends the memory of the scheme to the layout. */
attn_status attni_mpi_heads_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                 attni_mpi_heads *heads);

/* Collective. Leaves the results in the block, as *stored says. */
attn_status attni_mpi_heads_run(const attni_mpi_call *call, const attni_mpi_heads *heads,
                                char *block, attni_mpi_partial *stored);

#endif
