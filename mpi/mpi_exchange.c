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

attni_mpi_exchange attni_mpi_exchange_none(void) {
    return (attni_mpi_exchange){{MPI_REQUEST_NULL, MPI_REQUEST_NULL}, 0, MPI_SUCCESS};
}

static int rank_behind(const attni_mpi_link *link, int64_t distance) {
    const int64_t num_ranks = link->group.num_ranks;
    return (int)(((link->group.rank + distance) % num_ranks + num_ranks) % num_ranks);
}

/* MPICH on UCX copies 512 KiB between two processes of a machine in one of its functions. One look
 * more finds that it is done. A look that finds nothing to do takes a microsecond or so. */
static int64_t looks_at(int64_t bytes) {
    return bytes / (1 << 19) + 2;
}

/* Nothing but a ring's messages is sent over the duplicate while it turns, so what they are is tag
 * enough. */
attn_status attni_mpi_exchange_start(const attni_mpi_link *link, const attni_mpi_passing *passing,
                                     attni_mpi_exchange *exchange) {
    *exchange = attni_mpi_exchange_none();
    exchange->looks = looks_at(passing->received_bytes + passing->sent_bytes);
    ATTNI_MPI_TRY(attni_mpi_result(
        "MPI_Irecv",
        MPI_Irecv(passing->received, (int)(passing->received_bytes / ATTNI_MPI_UNIT_BYTES),
                  link->unit, rank_behind(link, -passing->distance), (int)passing->what,
                  link->group.comm, &exchange->requests[0])));
    const attn_status status = attni_mpi_result(
        "MPI_Isend", MPI_Isend(passing->sent, (int)(passing->sent_bytes / ATTNI_MPI_UNIT_BYTES),
                               link->unit, rank_behind(link, passing->distance), (int)passing->what,
                               link->group.comm, &exchange->requests[1]));
    if (status != ATTN_OK) {
        MPI_Cancel(&exchange->requests[0]);
        MPI_Wait(&exchange->requests[0], MPI_STATUS_IGNORE);
    }
    return status;
}

void attni_mpi_exchange_progress(attni_mpi_exchange *exchange) {
    int is_done = 0;
    MPI_Status states[2];
    /* A request that is done becomes a null one, which is done once more at the end. */
    for (int64_t i = 0; i < exchange->looks && !is_done && exchange->code == MPI_SUCCESS; ++i) {
        exchange->code = MPI_Testall(2, exchange->requests, &is_done, states);
    }
}

attn_status attni_mpi_exchange_finish(attni_mpi_exchange *exchange) {
    MPI_Status states[2];
    const int code = MPI_Waitall(2, exchange->requests, states);
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Testall", exchange->code));
    return attni_mpi_result("MPI_Waitall", code);
}
