/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_exchange.h: messages of units between ranks.
 */
#ifndef ATTNI_MPI_EXCHANGE_H
#define ATTNI_MPI_EXCHANGE_H

#include "mpi_link.h"

/* Bytes, a whole number of units, as MPI counts them. Fails with ATTN_ERROR_OVERFLOW. */
attn_status attni_mpi_units(int64_t bytes, int *units);

/* A message to the next rank and one from the rank before, both under way until they are finished.
 */
typedef struct attni_mpi_exchange {
    MPI_Request requests[2];
} attni_mpi_exchange;

/* Fails with nothing under way. */
attn_status attni_mpi_exchange_start(const attni_mpi_link *link, const void *sent, int sent_units,
                                     void *received, int received_units,
                                     attni_mpi_exchange *exchange);

/* Lets MPI go on with messages, for many a one does so inside its functions only. What is wrong
 * shows when the exchange is finished. */
void attni_mpi_exchange_progress(attni_mpi_exchange *exchange);

attn_status attni_mpi_exchange_finish(attni_mpi_exchange *exchange);

#endif
