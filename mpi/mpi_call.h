/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_call.h: one call in canonical form, as data.
 */
#ifndef ATTNI_MPI_CALL_H
#define ATTNI_MPI_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/backward.h>

#include "mpi_link.h"
#include "mpi_numbers.h"
#include "mpi_placement.h"

/* What a public function was given. */
typedef struct attni_mpi_arguments {
    attn_context *context;
    const attn_tensor *query, *key, *value;
    const attn_sdpa_params *params;
    const attn_mpi_params *mpi_params;
    const attn_tensor *output;
    void *workspace;
    size_t workspace_bytes;
    bool looks_at_data; /* else only sizes are asked for, and data may be NULL */
    bool is_backward;   /* with gradients; output and lse are read */
    const attn_sdpa_gradients *gradients;
} attni_mpi_arguments;

/* The gradients that a backward pass may be asked for, in the order of attn_sdpa_gradients. */
enum attni_mpi_gradient {
    ATTNI_MPI_OF_QUERY,
    ATTNI_MPI_OF_KEY,
    ATTNI_MPI_OF_VALUE,
    ATTNI_MPI_OF_MASK,
    ATTNI_MPI_OF_BIAS,
    ATTNI_MPI_OF_POSITION_BIAS,
    ATTNI_MPI_OF_SLOPES,
    ATTNI_MPI_OF_SINKS,
    ATTNI_MPI_NUM_GRADIENTS
};

/* Costs, all of them set. */
typedef struct attni_mpi_costs {
    double latency_seconds, bytes_per_second, products_per_second;
} attni_mpi_costs;

/* One call on one rank. Below, B stands for the batch axes, L and S for the rank's own rows. */
typedef struct attni_mpi_call {
    attn_context *context;
    const attni_mpi_link *link; /* with the places of this call */
    attn_tensor query, key, value, output;
    attn_tensor lse; /* with has_lse */
    bool has_lse;
    bool is_softmax;         /* parts are merged by lse; else they are added */
    attn_sdpa_params params; /* the caller's, as far as this version knows them */
    int32_t scheme;          /* never ATTN_MPI_SCHEME_AUTO once it is chosen */
    int32_t placement;
    attni_mpi_costs costs;
    attn_mpi_report *report; /* wanted, or NULL */

    /* Of any rank: rows of a mask, a bias, blocks; one that may be for all rows. */
    bool mask_has_rows, bias_has_rows, blocks_have_rows;
    bool masks_have_one_row, blocks_have_one_row;
    bool masks_have_rows; /* or may have, so that they belong to a rank's queries */

    /* params.dropout, where there is some, and the gradients of a backward pass, as far as this
     * version knows them */
    attn_dropout dropout;
    attn_sdpa_gradients gradients;
    bool is_backward;

    /* params.query_offset, key_lengths and mask_start, where these are given */
    attni_mpi_numbers offsets, lengths, starts;
    bool has_offsets, has_lengths, has_starts;

    int64_t num_rows, num_keys; /* of the whole */
    int32_t score_dtype;        /* of partial results */
} attni_mpi_call;

#endif
