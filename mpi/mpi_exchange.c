/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_exchange.c: messages of the ring.
 */
#include "mpi_exchange.h"

#include <limits.h>

attn_status attni_mpi_units(int64_t bytes, int *units) {
    const int64_t count = bytes / ATTNI_MPI_UNIT_BYTES;
    if (count > INT_MAX) {
        return attni_mpi_fail(ATTN_ERROR_OVERFLOW,
                              "comm: a message would have %lld bytes, more than MPI counts",
                              (long long)bytes);
    }
    *units = (int)count;
    return ATTN_OK;
}

/* Nothing else is sent over the duplicate while a ring turns, so one tag is enough. */
enum { RING_TAG = 0 };

attn_status attni_mpi_exchange_start(const attni_mpi_link *link, const void *sent, int sent_units,
                                     void *received, int received_units,
                                     attni_mpi_exchange *exchange) {
    const int next = (link->group.rank + 1) % link->group.num_ranks;
    const int before = (link->group.rank + link->group.num_ranks - 1) % link->group.num_ranks;
    exchange->requests[0] = MPI_REQUEST_NULL;
    exchange->requests[1] = MPI_REQUEST_NULL;
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Irecv",
                                   MPI_Irecv(received, received_units, link->unit, before, RING_TAG,
                                             link->group.comm, &exchange->requests[0])));
    const attn_status status =
        attni_mpi_result("MPI_Isend", MPI_Isend(sent, sent_units, link->unit, next, RING_TAG,
                                                link->group.comm, &exchange->requests[1]));
    if (status != ATTN_OK) {
        MPI_Cancel(&exchange->requests[0]);
        MPI_Wait(&exchange->requests[0], MPI_STATUS_IGNORE);
    }
    return status;
}

void attni_mpi_exchange_progress(attni_mpi_exchange *exchange) {
    int is_done;
    MPI_Status states[2];
    /* A request that is done becomes a null one, which is done once more at the end. */
    MPI_Testall(2, exchange->requests, &is_done, states);
}

attn_status attni_mpi_exchange_finish(attni_mpi_exchange *exchange) {
    MPI_Status states[2];
    return attni_mpi_result("MPI_Waitall", MPI_Waitall(2, exchange->requests, states));
}
