/* SPDX-License-Identifier: BSD-3-Clause
 *
 * message_trace.c: the library's own calls of MPI come here first, as MPI's profiling interface
 * allows. It is known by its use: each MPI_Irecv is followed by the MPI_Isend that passes something
 * on at the same time, and MPI_Testall and MPI_Waitall are for the two requests of one such pair.
 */
#include "message_trace.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <mpi.h>

enum { MOST_RECORDS = 4096 };

typedef struct record {
    const MPI_Request *requests;
    int source, destination;
    double begun, wait_begun, wait_ended;
    bool is_done, was_looked_at;
} record;

static record records[MOST_RECORDS];
static int num_records;
static double looked_seconds, agreed_seconds;
static double start_of_call, inside_mpi; /* of the processor */

static double seconds_of(clockid_t clock) {
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double trace_processor_seconds(void) {
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

/* Monotonic, and the same for all ranks of a machine, which MPI_Wtime need not be. */
static double trace_seconds(void) {
    return seconds_of(CLOCK_MONOTONIC);
}

/* The latest one with these requests, or NULL. */
static record *find_record(const MPI_Request *requests) {
    for (int i = num_records - 1; i >= 0; --i) {
        if (records[i].requests == requests) {
            return &records[i];
        }
    }
    return NULL;
}

int MPI_Irecv(void *data, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
              MPI_Request *request) {
    const int code = PMPI_Irecv(data, count, type, source, tag, comm, request);
    if (num_records == MOST_RECORDS) {
        (void)fputs("bench_ranks: more messages than the trace holds\n", stderr);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    records[num_records++] = (record){.requests = request, .source = source, .destination = source};
    return code;
}

int MPI_Isend(const void *data, int count, MPI_Datatype type, int destination, int tag,
              MPI_Comm comm, MPI_Request *request) {
    const int code = PMPI_Isend(data, count, type, destination, tag, comm, request);
    if (num_records > 0) {
        records[num_records - 1].destination = destination;
        records[num_records - 1].begun = trace_seconds();
    }
    return code;
}

int MPI_Testall(int count, MPI_Request *requests, int *is_done, MPI_Status *states) {
    record *const found = find_record(requests);
    const double start = trace_seconds(), processor = trace_processor_seconds();
    const int code = PMPI_Testall(count, requests, is_done, states);
    looked_seconds += trace_seconds() - start;
    inside_mpi += trace_processor_seconds() - processor;
    if (found != NULL && found->wait_begun == 0) {
        found->was_looked_at = true;
        found->is_done = found->is_done || *is_done;
    }
    return code;
}

int MPI_Waitall(int count, MPI_Request *requests, MPI_Status *states) {
    record *const found = find_record(requests);
    const double start = trace_seconds(), processor = trace_processor_seconds();
    const int code = PMPI_Waitall(count, requests, states);
    inside_mpi += trace_processor_seconds() - processor;
    if (found != NULL) {
        found->wait_begun = start;
        found->wait_ended = trace_seconds();
    }
    return code;
}

/* Ranks agree by these, which is waiting too. */
int MPI_Allreduce(const void *sent, void *received, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm comm) {
    const double start = trace_seconds(), processor = trace_processor_seconds();
    const int code = PMPI_Allreduce(sent, received, count, type, op, comm);
    agreed_seconds += trace_seconds() - start;
    inside_mpi += trace_processor_seconds() - processor;
    return code;
}

int MPI_Allgather(const void *sent, int count, MPI_Datatype type, void *received,
                  int received_count, MPI_Datatype received_type, MPI_Comm comm) {
    const double start = trace_seconds(), processor = trace_processor_seconds();
    const int code =
        PMPI_Allgather(sent, count, type, received, received_count, received_type, comm);
    agreed_seconds += trace_seconds() - start;
    inside_mpi += trace_processor_seconds() - processor;
    return code;
}

void trace_begin(void) {
    num_records = 0;
    looked_seconds = agreed_seconds = inside_mpi = 0;
    start_of_call = trace_processor_seconds();
}

/* From when both ends have begun; all ranks have as many records, in the same order. */
static double shown_seconds(const record *of, const double *begun, int index, int count) {
    const double other =
        fmax(begun[of->source * count + index], begun[of->destination * count + index]);
    return of->is_done ? 0 : fmax(0, of->wait_ended - fmax(of->wait_begun, other));
}

message_trace trace_end(void) {
    int num_ranks;
    double begun[MOST_RECORDS];
    const int count = num_records;
    MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
    double *const all = malloc((size_t)(num_ranks * count + 1) * sizeof *all);
    message_trace mine = {.processor = trace_processor_seconds() - start_of_call - inside_mpi,
                          .looked = looked_seconds,
                          .waited = agreed_seconds};
    if (all == NULL) {
        MPI_Abort(MPI_COMM_WORLD, 1);
        exit(1);
    }
    for (int i = 0; i < count; ++i) {
        begun[i] = records[i].begun;
    }
    PMPI_Allgather(begun, count, MPI_DOUBLE, all, count, MPI_DOUBLE, MPI_COMM_WORLD);
    for (int i = 0; i < count; ++i) {
        const double shown = shown_seconds(&records[i], all, i, count);
        mine.waited += records[i].wait_ended - records[i].wait_begun;
        *(records[i].was_looked_at ? &mine.shown : &mine.shown_home) += shown;
    }
    free(all);
    const double numbers[] = {mine.processor, mine.looked, mine.waited, mine.shown,
                              mine.shown_home};
    double sums[5];
    PMPI_Allreduce(numbers, sums, 5, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return (message_trace){.processor = sums[0] / num_ranks,
                           .looked = sums[1] / num_ranks,
                           .waited = sums[2] / num_ranks,
                           .shown = sums[3] / num_ranks,
                           .shown_home = sums[4] / num_ranks};
}
