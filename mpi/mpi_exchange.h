/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_exchange.h: messages of units between ranks.
 */
#ifndef ATTNI_MPI_EXCHANGE_H
#define ATTNI_MPI_EXCHANGE_H

#include "mpi_link.h"

/* Bytes, a whole number of units, as MPI counts them. Fails with ATTN_ERROR_OVERFLOW. */
attn_status attni_mpi_units(int64_t bytes, int *units);

/* What a ring passes on; messages of one kind do not meet those of the other. */
enum attni_mpi_passed { ATTNI_MPI_PASSED_KEYS, ATTNI_MPI_PASSED_SUMS };

/* What goes to the rank `distance` behind this one, and comes from the one as far before it, of
 * whole units. */
typedef struct attni_mpi_passing {
    enum attni_mpi_passed what;
    int64_t distance;
    const char *sent;
    int64_t sent_bytes;
    char *received;
    int64_t received_bytes;
} attni_mpi_passing;

/* Two messages that are under way until they are finished, or none; and how often MPI is let go on
 * with them at a time, since some carry half a megabyte of a long message in each of its functions
 * and the rest in the one that waits. A look that fails may take a request with it, so that waiting
 * would succeed: its code is kept. */
typedef struct attni_mpi_exchange {
    MPI_Request requests[2];
    int64_t looks;
    int code;
} attni_mpi_exchange;

attni_mpi_exchange attni_mpi_exchange_none(void);

/* Fails with nothing under way. */
attn_status attni_mpi_exchange_start(const attni_mpi_link *link, const attni_mpi_passing *passing,
                                     attni_mpi_exchange *exchange);

/* Lets MPI go on with messages, for many a one does so inside its functions only. What is wrong
 * shows when the exchange is finished. */
void attni_mpi_exchange_progress(attni_mpi_exchange *exchange);

attn_status attni_mpi_exchange_finish(attni_mpi_exchange *exchange);

#endif
