/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_cost.h: what each scheme should cost, by the model that attn_mpi_report describes.
 */
#ifndef ATTNI_MPI_COST_H
#define ATTNI_MPI_COST_H

#include "mpi_call.h"

typedef struct attni_mpi_prediction {
    double ring_seconds, heads_seconds, decode_seconds; /* infinite where a scheme cannot serve */
} attni_mpi_prediction;

/* Pairs of one of `count` rows from position `first` on and a key that causality and window let it
 * see, of num_keys. */
double attni_mpi_visible_pairs(const attn_sdpa_params *params, double first, double count,
                               double num_keys);

/* The same on all ranks. Queries of decode are everywhere, those of the others each somewhere, so
 * never are all three finite. */
attni_mpi_prediction attni_mpi_predict(const attni_mpi_call *call);

#endif
