/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_head_ranges.h: which heads are whose, where each rank attends some, and options of these.
 */
#ifndef ATTNI_MPI_HEAD_RANGES_H
#define ATTNI_MPI_HEAD_RANGES_H

#include "mpi_call.h"

/* How many sets of heads can be apart, the smallest ones. 1: the scheme is of no use, but right. */
int64_t attni_mpi_heads_units(const attni_mpi_call *call);

/* Units of the rank that has most. */
int64_t attni_mpi_heads_most_units(const attni_mpi_call *call);

bool attni_mpi_has_heads(const attni_mpi_call *call, int rank);

/* The rank's heads along an axis, counted from the end, that has a position for each head or one
 * for all. A tensor without the axis is for all. */
attn_tensor attni_mpi_cut_heads(const attni_mpi_call *call, const attn_tensor *tensor, int32_t axis,
                                int rank);

/* params for all rows of the calling rank's heads. */
typedef struct attni_mpi_head_options {
    attn_tensor mask, bias, slopes, sinks, position_bias, blocks;
    attn_dropout dropout;
    attn_sdpa_params params; /* without lse */
} attni_mpi_head_options;

void attni_mpi_describe_head_options(const attni_mpi_call *call, attni_mpi_head_options *options);

#endif
