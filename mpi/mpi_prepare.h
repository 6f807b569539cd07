/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_prepare.h: what a public function does before data travels, and after it has.
 */
#ifndef ATTNI_MPI_PREPARE_H
#define ATTNI_MPI_PREPARE_H

#include "mpi_plan.h"

/*
 * Collective: all that comes before data travels. `status` is what the public function has found by
 * itself. After a failure on any rank nothing is left to be released.
 */
attn_status attni_mpi_prepare(MPI_Comm comm, const attni_mpi_arguments *arguments,
                              attn_status status, attni_mpi_call *call, attni_mpi_plan *plan,
                              attni_mpi_memory *memory);

/* Collective: the bytes of workspace that a call of these arguments needs. */
attn_status attni_mpi_tell_bytes(MPI_Comm comm, const attni_mpi_arguments *arguments,
                                 size_t *bytes);

/* Collective: what a call of these arguments would run. */
attn_status attni_mpi_tell_plan(MPI_Comm comm, const attni_mpi_arguments *arguments,
                                attn_mpi_report *report);

/* Fills the report that the caller wants of a run, if any. */
void attni_mpi_report_run(const attni_mpi_call *call, const attni_mpi_plan *plan);

/* The communicator of a Fortran handle, which means something only while MPI runs. */
MPI_Comm attni_mpi_communicator_of(MPI_Fint comm);

#endif
