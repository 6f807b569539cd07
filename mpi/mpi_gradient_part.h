/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_gradient_part.h: what a part adds to the gradients, which is one call of attn_sdpa_backward
 * with the output and lse of all keys.
 */
#ifndef ATTNI_MPI_GRADIENT_PART_H
#define ATTNI_MPI_GRADIENT_PART_H

#include "mpi_part.h"
#include "mpi_sums.h"

/* Keys and values that parts have, and where their gradients are summed: rows in like places. */
typedef struct attni_mpi_keys_at_hand {
    attn_tensor key, value;
    const attn_tensor *key_sum, *value_sum; /* NULL what is not wanted */
} attni_mpi_keys_at_hand;

/* As attni_mpi_part_plan. */
attn_status attni_mpi_gradient_part_plan(const attni_mpi_call *call, const attni_mpi_part *part,
                                         const attn_tensor *key, const attn_tensor *value,
                                         attni_mpi_part_scratch *scratch);

/* Adds a part's share to all sums but that of the sinks. */
attn_status attni_mpi_gradient_part_run(const attni_mpi_call *call, const attni_mpi_part *part,
                                        const attni_mpi_keys_at_hand *keys,
                                        const attni_mpi_sums *sums,
                                        const attni_mpi_part_scratch *scratch, char *block);

/* The gradient of the sinks has a term for each row and none for keys, so rows add theirs once, by
 * a call that sees all positions of keys and reads none. */
typedef struct attni_mpi_sinks_part {
    int64_t zero_at; /* what the keys are that are not read */
} attni_mpi_sinks_part;

/* Appends what the call needs, beside the scratch memory of parts; of both stretches of rows. */
attn_status attni_mpi_sinks_part_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                      attni_mpi_part_scratch *scratch, attni_mpi_sinks_part *sinks);

attn_status attni_mpi_sinks_part_run(const attni_mpi_call *call, const attni_mpi_sinks_part *sinks,
                                     const attni_mpi_sums *sums,
                                     const attni_mpi_part_scratch *scratch, char *block);

#endif
