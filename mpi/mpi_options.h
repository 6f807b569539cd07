/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_options.h: the structs of options: read as structs that grow, checked where the core library
 * does not, and filled.
 */
#ifndef ATTNI_MPI_OPTIONS_H
#define ATTNI_MPI_OPTIONS_H

#include "mpi_call.h"

/* The caller's params, NULL allowed, with their dropout into the call. Fails for a struct that this
 * version cannot read, and for options that are not for many ranks. */
attn_status attni_mpi_read_sdpa_params(const attn_sdpa_params *given, attni_mpi_call *call);

/* Likewise a backward pass's gradients. */
attn_status attni_mpi_read_gradients(const attn_sdpa_gradients *given, attni_mpi_call *call);

/* Scheme, placement and costs of mpi_params, NULL allowed, into the call; costs that are left to
 * the library stay 0. */
attn_status attni_mpi_read_params(const attn_mpi_params *given, attni_mpi_call *call);

/* Fails unless `report` is a struct that may be filled. */
attn_status attni_mpi_check_report(const attn_mpi_report *report);

/* Fills as much of the caller's struct as it has room for; the rest becomes 0. */
void attni_mpi_write_report(const attn_mpi_report *known, attn_mpi_report *report);

#endif
