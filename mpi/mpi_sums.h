/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_sums.h: the gradients of a call while they are summed: in the block, of the score type, so
 * that the caller's tensors are written once all ranks have succeeded.
 */
#ifndef ATTNI_MPI_SUMS_H
#define ATTNI_MPI_SUMS_H

#include "mpi_call.h"
#include "mpi_memory.h"

/* One gradient that is wanted. */
typedef struct attni_mpi_sum {
    int64_t at; /* in the block, contiguous */
    int64_t
        stored_at;  /* as it is stored, in the type that is wanted; `at` where that is the sum's */
    bool is_shared; /* it is of what all ranks have, and all get the sum of theirs */
} attni_mpi_sum;

typedef struct attni_mpi_sums {
    attni_mpi_sum of[ATTNI_MPI_NUM_GRADIENTS];
    int64_t shared_at, slice_bytes; /* (num_ranks, slice_bytes): all shared ones, side by side */
    int64_t slices_at;              /* the same: one rank's slice of the sums of all ranks */
    int64_t first_at, end_at;       /* where all sums lie */

    /* Elements of each that is shared, else 0: the same on all ranks. */
    int64_t shared_counts[ATTNI_MPI_NUM_GRADIENTS];
} attni_mpi_sums;

/* What is wanted, or NULL. */
const attn_tensor *attni_mpi_wanted(const attni_mpi_call *call, enum attni_mpi_gradient which);

/* Lays all sums out. Those of keys and values lie as they travel in a ring. */
attn_status attni_mpi_sums_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                attni_mpi_sums *sums);

/* Sets all sums to 0. */
void attni_mpi_sums_clear(const attni_mpi_sums *sums, char *block);

/* Points *view to a sum and returns it; NULL if it is not wanted. block NULL: no data. */
const attn_tensor *attni_mpi_sum_view(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                      char *block, enum attni_mpi_gradient which,
                                      attn_tensor *view);

/* Collective: adds up what is shared, in the order of the ranks, so that all have the same. */
attn_status attni_mpi_sums_share(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                 char *block);

/* Adds what the caller's tensors hold, if it is wanted, and rounds. */
attn_status attni_mpi_sums_store(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                 char *block);

/* Copies what is stored to where the caller wants it. Cannot fail. */
void attni_mpi_sums_publish(const attni_mpi_call *call, const attni_mpi_sums *sums, char *block);

#endif
