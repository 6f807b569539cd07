/* SPDX-License-Identifier: BSD-3-Clause
 *
 * patient_mpi.h: functions of MPI as the tests have them: they wait asleep, for more ranks than
 * processors wait for each other here, and fail when told to.
 */
#ifndef TESTS_MPI_PATIENT_MPI_H
#define TESTS_MPI_PATIENT_MPI_H

/* The functions that may fail. */
enum patient_function {
    PATIENT_ALLREDUCE,
    PATIENT_ALLGATHER,
    PATIENT_ALLTOALL,
    PATIENT_ALLTOALLV,
    PATIENT_IRECV,
    PATIENT_ISEND,
    PATIENT_WAITALL,
    PATIENT_COMM_DUP,
    PATIENT_TESTALL, /* how many there are differs from run to run */
    PATIENT_NUM_FUNCTIONS
};

extern const char *const patient_names[PATIENT_NUM_FUNCTIONS];

/* Makes the n-th call from now on, n = 1, ..., return an error and do nothing; 0: none. */
void patient_fail(enum patient_function function, int n);

/* Whether the call that was to fail has done so. */
int patient_has_failed(void);

#endif
