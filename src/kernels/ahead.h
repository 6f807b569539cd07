/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ahead.h: memory that will be needed soon.
 */
#ifndef ATTNI_KERNELS_AHEAD_H
#define ATTNI_KERNELS_AHEAD_H

#include <stdint.h>

/* Rows of memory that will be needed soon. Kernels that have time between two loads ask for the
 * next rows_at_once of them, and move on. */
typedef struct attni_ahead {
    const char *row;
    int64_t stride; /* bytes */
    int64_t bytes;  /* of a row */
    int64_t num_rows;
    int64_t rows_at_once;
    struct attni_ahead *also; /* asked for at the same time, or NULL */
} attni_ahead;

#endif
