/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_error.h: how these libraries report a failure: as the core library does, by a status and the
 * calling thread's line of detail.
 */
#ifndef ATTNI_MPI_ERROR_H
#define ATTNI_MPI_ERROR_H

#include <attention/mpi.h>

/* Bytes of a detail, its terminating zero included. */
enum { ATTNI_MPI_DETAIL_BYTES = 512 };

/* Sets the detail and returns `status`. */
attn_status attni_mpi_fail(attn_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Of what a function of MPI returned: ATTN_OK, or ATTN_MPI_ERROR_MPI with its name and MPI's words.
 */
attn_status attni_mpi_result(const char *function, int code);

/* Leaves the function with the status of `call` unless it is ATTN_OK. Only for functions that own
 * nothing. */
#define ATTNI_MPI_TRY(call)                              \
    do {                                                 \
        const attn_status attni_mpi_try_status = (call); \
        if (attni_mpi_try_status != ATTN_OK) {           \
            return attni_mpi_try_status;                 \
        }                                                \
    } while (0)

#endif
