/* SPDX-License-Identifier: BSD-3-Clause
 *
 * patient_mpi.c: stands between the library and MPI, as MPI's profiling interface allows.
 */
#include "patient_mpi.h"

#include <time.h>

#include <mpi.h>

const char *const patient_names[PATIENT_NUM_FUNCTIONS] = {
    "MPI_Allreduce", "MPI_Allgather", "MPI_Alltoall", "MPI_Alltoallv", "MPI_Irecv",
    "MPI_Isend",     "MPI_Waitall",   "MPI_Comm_dup", "MPI_Testall"};

static int failing_function = -1, calls_left, has_failed;

void patient_fail(enum patient_function function, int n) {
    failing_function = n > 0 ? (int)function : -1;
    calls_left = n;
    has_failed = 0;
}

int patient_has_failed(void) {
    return has_failed;
}

static int must_fail(enum patient_function function) {
    if (failing_function != (int)function || --calls_left != 0) {
        return 0;
    }
    failing_function = -1;
    has_failed = 1;
    return 1;
}

static void sleep_a_little(void) {
    const struct timespec moment = {.tv_nsec = 20000};
    nanosleep(&moment, NULL);
}

/* What waits for `count` requests does, after the call that made them returned `code`. */
static int wait_asleep(int code, int count, MPI_Request *requests) {
    int is_done = 0;
    MPI_Status states[32];
    while (code == MPI_SUCCESS && !is_done) {
        code = PMPI_Testall(count, requests, &is_done, states);
        if (!is_done) {
            sleep_a_little();
        }
    }
    return code;
}

int MPI_Allreduce(const void *sent, void *received, int count, MPI_Datatype type, MPI_Op operation,
                  MPI_Comm comm) {
    MPI_Request request;
    if (must_fail(PATIENT_ALLREDUCE)) {
        return MPI_ERR_OTHER;
    }
    return wait_asleep(PMPI_Iallreduce(sent, received, count, type, operation, comm, &request), 1,
                       &request);
}

int MPI_Allgather(const void *sent, int sent_count, MPI_Datatype sent_type, void *received,
                  int received_count, MPI_Datatype received_type, MPI_Comm comm) {
    MPI_Request request;
    if (must_fail(PATIENT_ALLGATHER)) {
        return MPI_ERR_OTHER;
    }
    return wait_asleep(PMPI_Iallgather(sent, sent_count, sent_type, received, received_count,
                                       received_type, comm, &request),
                       1, &request);
}

int MPI_Alltoall(const void *sent, int sent_count, MPI_Datatype sent_type, void *received,
                 int received_count, MPI_Datatype received_type, MPI_Comm comm) {
    MPI_Request request;
    if (must_fail(PATIENT_ALLTOALL)) {
        return MPI_ERR_OTHER;
    }
    return wait_asleep(PMPI_Ialltoall(sent, sent_count, sent_type, received, received_count,
                                      received_type, comm, &request),
                       1, &request);
}

/* By messages: Open MPI 4.1 numbers its MPI_Ialltoallv on ranks only that have something to send,
 * to themselves too, and what comes after waits for ever. */
int MPI_Alltoallv(const void *sent, const int *sent_counts, const int *sent_places,
                  MPI_Datatype sent_type, void *received, const int *received_counts,
                  const int *received_places, MPI_Datatype received_type, MPI_Comm comm) {
    enum { MOST_RANKS = 16, TAG = 1 };
    MPI_Request requests[2 * MOST_RANKS];
    MPI_Aint least, extent;
    int num_ranks, code = MPI_SUCCESS;
    if (must_fail(PATIENT_ALLTOALLV)) {
        return MPI_ERR_OTHER;
    }
    MPI_Comm_size(comm, &num_ranks);
    MPI_Type_get_extent(sent_type, &least, &extent);
    if (num_ranks > MOST_RANKS) {
        return MPI_ERR_OTHER;
    }
    for (int rank = 0; rank < num_ranks && code == MPI_SUCCESS; ++rank) {
        code = PMPI_Irecv((char *)received + received_places[rank] * extent, received_counts[rank],
                          received_type, rank, TAG, comm, &requests[2 * rank]);
        code |= PMPI_Isend((const char *)sent + sent_places[rank] * extent, sent_counts[rank],
                           sent_type, rank, TAG, comm, &requests[2 * rank + 1]);
    }
    return wait_asleep(code, 2 * num_ranks, requests);
}

int MPI_Bcast(void *buffer, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    MPI_Request request;
    return wait_asleep(PMPI_Ibcast(buffer, count, type, root, comm, &request), 1, &request);
}

int MPI_Barrier(MPI_Comm comm) {
    MPI_Request request;
    return wait_asleep(PMPI_Ibarrier(comm, &request), 1, &request);
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *duplicate) {
    return must_fail(PATIENT_COMM_DUP) ? MPI_ERR_OTHER : PMPI_Comm_dup(comm, duplicate);
}

int MPI_Irecv(void *buffer, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
              MPI_Request *request) {
    return must_fail(PATIENT_IRECV) ? MPI_ERR_OTHER
                                    : PMPI_Irecv(buffer, count, type, source, tag, comm, request);
}

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int target, int tag, MPI_Comm comm,
              MPI_Request *request) {
    return must_fail(PATIENT_ISEND) ? MPI_ERR_OTHER
                                    : PMPI_Isend(buffer, count, type, target, tag, comm, request);
}

int MPI_Testall(int count, MPI_Request *requests, int *is_done, MPI_Status *states) {
    return must_fail(PATIENT_TESTALL) ? MPI_ERR_OTHER
                                      : PMPI_Testall(count, requests, is_done, states);
}

/* Waits before it fails: a request that nobody waits for would write later. */
int MPI_Waitall(int count, MPI_Request *requests, MPI_Status *states) {
    (void)states;
    const int code = wait_asleep(MPI_SUCCESS, count, requests);
    return must_fail(PATIENT_WAITALL) ? MPI_ERR_OTHER : code;
}
