/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_error.c: the details of failures, and the names of statuses.
 */
#include "mpi_error.h"

#include <stdarg.h>
#include <stdio.h>

attn_status attni_mpi_fail(attn_status status, const char *format, ...) {
    char line[ATTNI_MPI_DETAIL_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return attn_error_set(status, line);
}

attn_status attni_mpi_result(const char *function, int code) {
    if (code == MPI_SUCCESS) {
        return ATTN_OK;
    }
    char words[MPI_MAX_ERROR_STRING] = "";
    int length;
    if (MPI_Error_string(code, words, &length) != MPI_SUCCESS) {
        return attni_mpi_fail(ATTN_MPI_ERROR_MPI, "%s: failed with %d", function, code);
    }
    return attni_mpi_fail(ATTN_MPI_ERROR_MPI, "%s: %s", function, words);
}

const char *attn_mpi_status_name(attn_status status) {
    static const char *const names[] = {"ATTN_MPI_ERROR_STATE", "ATTN_MPI_ERROR_MPI",
                                        "ATTN_MPI_ERROR_DISAGREE", "ATTN_MPI_ERROR_THREAD_LEVEL"};
    if (status < ATTN_MPI_ERROR_STATE || status > ATTN_MPI_ERROR_THREAD_LEVEL) {
        return attn_status_name(status);
    }
    return names[status - ATTN_MPI_ERROR_STATE];
}
