/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_deal.h: rows of all heads against all rows of some heads, and back. A message has the rows of
 * one rank for the heads of another, one tensor behind the other.
 */
#ifndef ATTNI_MPI_DEAL_H
#define ATTNI_MPI_DEAL_H

#include "mpi_head_ranges.h"
#include "mpi_memory.h"

/* A tensor as a rank has it, and as the scheme does. */
typedef struct attni_mpi_dealt {
    attn_tensor own;   /* the rank's rows of all heads, anywhere */
    attn_tensor whole; /* all rows of the rank's heads, in the block */
    int64_t whole_at;
    bool has_key_rows; /* else those of queries */
    int32_t row_axis;  /* from the end: -2, or -1 of lse; the axis before it is that of heads */
} attni_mpi_dealt;

/* What goes one way. */
enum { ATTNI_MPI_MOST_DEALT = 8 };
typedef struct attni_mpi_deal {
    attni_mpi_dealt tensors[ATTNI_MPI_MOST_DEALT];
    int count;
} attni_mpi_deal;

/* Appends a tensor and returns its place; whole has no data yet. */
attni_mpi_dealt *attni_mpi_deal_add(const attni_mpi_call *call, attni_mpi_deal *deal,
                                    const attn_tensor *own, bool has_key_rows, int32_t row_axis);

/* Lays the wholes out, of a rank that has heads. */
void attni_mpi_deal_layout(const attni_mpi_call *call, attni_mpi_layout *layout,
                           attni_mpi_deal *deal);

/* Points the wholes to where they were laid out. */
void attni_mpi_deal_place(attni_mpi_deal *deal, char *block);

/* The messages of both ways, one after the other. */
typedef struct attni_mpi_dealing {
    int64_t sent_at, received_at; /* packed rows of heads, by rank */
    int64_t counts_at;            /* (4, num_ranks) ints: counts and places of both directions */
    int64_t bytes_sent;           /* there and back, to others */
} attni_mpi_dealing;

attn_status attni_mpi_dealing_plan(const attni_mpi_call *call, const attni_mpi_deal *there,
                                   const attni_mpi_deal *back, attni_mpi_layout *layout,
                                   attni_mpi_dealing *dealing);

/* Collective: own to whole. */
attn_status attni_mpi_deal_there(const attni_mpi_call *call, const attni_mpi_dealing *dealing,
                                 const attni_mpi_deal *deal, char *block);

/* Collective: whole to own, which is overwritten, or with `adds` the sum of itself and of what the
 * ranks send, in their order. A rank without results sends whatever there is, for it is awaited. */
attn_status attni_mpi_deal_back(const attni_mpi_call *call, const attni_mpi_dealing *dealing,
                                const attni_mpi_deal *deal, bool adds, char *block);

#endif
