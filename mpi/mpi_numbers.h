/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_numbers.h: lengths and offsets of sequences, which count within the whole, as those of a part
 * of its rows and keys.
 */
#ifndef ATTNI_MPI_NUMBERS_H
#define ATTNI_MPI_NUMBERS_H

#include <stdint.h>

#include "mpi_error.h"

/* A caller's int64 or int32 tensor of any shape. Axes that only repeat have length 1 here, so that
 * work is bounded by the elements there are. */
typedef struct attni_mpi_numbers {
    attn_tensor tensor;
    int64_t count;           /* of its elements */
    int64_t lowest, highest; /* of all, or any number where they were not looked at */
    int64_t digest;          /* the same for the same shape and numbers */
} attni_mpi_numbers;

/* x + y, but at most INT64_MAX and at least INT64_MIN. */
int64_t attni_mpi_saturated_sum(int64_t x, int64_t y);

/* A valid view of integers; its elements are not looked at. */
void attni_mpi_numbers_describe(const attn_tensor *given, attni_mpi_numbers *numbers);

/* Looks at all elements for lowest, highest and digest. */
void attni_mpi_numbers_read(attni_mpi_numbers *numbers);

/* All numbers + shift, no less than `lowest` and no more than `highest`, written to `storage`
 * (count elements), and the view of them. */
attn_tensor attni_mpi_numbers_shifted(const attni_mpi_numbers *numbers, int64_t shift,
                                      int64_t lowest, int64_t highest, int64_t *storage);

#endif
