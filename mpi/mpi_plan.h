/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_plan.h: which scheme a call takes, and what it needs.
 */
#ifndef ATTNI_MPI_PLAN_H
#define ATTNI_MPI_PLAN_H

#include "mpi_cost.h"
#include "mpi_decode.h"
#include "mpi_decode_backward.h"
#include "mpi_heads.h"
#include "mpi_heads_backward.h"
#include "mpi_ring.h"
#include "mpi_ring_backward.h"

typedef struct attni_mpi_plan {
    attni_mpi_layout layout;
    attni_mpi_prediction prediction;
    const char *reason;  /* why this scheme */
    int64_t num_steps;   /* of a ring; else 1 */
    int64_t bytes_sent;  /* by the calling rank */
    attni_mpi_sums sums; /* of a backward pass */
    union {
        attni_mpi_ring ring;
        attni_mpi_heads heads;
        attni_mpi_decode decode;
        attni_mpi_ring_backward ring_backward;
        attni_mpi_heads_backward heads_backward;
        attni_mpi_decode_backward decode_backward;
    } scheme;
} attni_mpi_plan;

/* Chooses the scheme, where it is left to the library, and completes the call's places and lengths
 * of the whole. The same on all ranks. */
attn_status attni_mpi_choose_scheme(attni_mpi_link *link, attni_mpi_call *call,
                                    attni_mpi_plan *plan);

/* Lays out the memory of the chosen scheme, of whichever pass. */
attn_status attni_mpi_make_plan(const attni_mpi_call *call, attni_mpi_plan *plan);

void attni_mpi_make_report(const attni_mpi_call *call, const attni_mpi_plan *plan,
                           attn_mpi_report *report);

#endif
