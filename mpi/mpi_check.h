/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_check.h: every argument error of one rank, in two steps: what it can see by itself, and what
 * it can see once the lengths of all ranks are known.
 */
#ifndef ATTNI_MPI_CHECK_H
#define ATTNI_MPI_CHECK_H

#include "mpi_call.h"

/* Fills *call but for what depends on other ranks; num_threads: of the context. The call is zeroed
 * first, and valid for attni_mpi_share_call after a failure too. */
attn_status attni_mpi_check_own(const attni_mpi_arguments *arguments, attni_mpi_call *call,
                                int32_t *num_threads);

/* Whether MPI lets this thread call it beside so many threads of a context. */
attn_status attni_mpi_check_thread_level(int32_t num_threads);

/* Options, shapes and types as the core library checks them for the whole, and the numbers of
 * key_lengths and query_offset; once the scheme is chosen. */
attn_status attni_mpi_check_whole(const attni_mpi_arguments *arguments, attni_mpi_call *call);

/* Whether outputs overlap each other, or the needed part of the workspace overlaps a tensor. (That no
 * output overlaps itself is seen by attni_mpi_check_whole.) */
attn_status attni_mpi_check_overlap(const attni_mpi_arguments *arguments,
                                    const attni_mpi_call *call, size_t needed_bytes);

#endif
