/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_facts.h: what all ranks must say alike of a call, and what each tells the others.
 */
#ifndef ATTNI_MPI_FACTS_H
#define ATTNI_MPI_FACTS_H

#include "mpi_call.h"

/*
 * Collective: agrees on the outcome of attni_mpi_check_own and on shapes, types and options, then
 * tells all ranks' lengths. Completes link's lengths, what masks have and costs.
 */
attn_status attni_mpi_share_call(attn_status status, int32_t num_threads, attni_mpi_link *link,
                                 attni_mpi_call *call);

/* Collective: agrees on the outcome of what came after, where data is looked at on the numbers in
 * key_lengths and query_offset, and on how many elements there are of each gradient that is summed
 * over ranks. */
attn_status attni_mpi_share_numbers(attn_status status, const attni_mpi_call *call,
                                    const int64_t shared_counts[ATTNI_MPI_NUM_GRADIENTS]);

#endif
