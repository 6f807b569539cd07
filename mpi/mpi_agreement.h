/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_agreement.h: one status for all ranks, in memory that does not grow with them.
 */
#ifndef ATTNI_MPI_AGREEMENT_H
#define ATTNI_MPI_AGREEMENT_H

#include <stdint.h>

#include "mpi_error.h"

/* Ranks that agree. */
typedef struct attni_mpi_group {
    MPI_Comm comm;
    int rank, num_ranks;
} attni_mpi_group;

/* What all ranks must say alike. `is_real`: the value's bits are a double's, for messages. */
typedef struct attni_mpi_fact {
    const char *name;
    int64_t value;
    int is_real;
} attni_mpi_fact;

/* Numbers of which all ranks get the least. */
enum { ATTNI_MPI_MOST_FACTS = 96, ATTNI_MPI_MOST_LEAST = 8 };

/*
 * Collective: returns ATTN_OK on all ranks if all of them give that, else on all the status of the
 * lowest that gives another, with its detail, of the calling thread, behind "rank <r>: ". Fails
 * with ATTN_MPI_ERROR_MPI where MPI does.
 */
attn_status attni_mpi_agree(const attni_mpi_group *group, attn_status status);

/*
 * The same, and if all give ATTN_OK, ATTN_MPI_ERROR_DISAGREE on all ranks unless all `count` facts,
 * which have the same names in the same order everywhere, have the same values. least: numbers that
 * become the least of all ranks', changed only where all agree.
 */
attn_status attni_mpi_agree_on(const attni_mpi_group *group, attn_status status,
                               const attni_mpi_fact *facts, int count, int64_t *least,
                               int num_least);

#endif
