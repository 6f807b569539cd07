/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_case.h: a random call of attention whose rows lie on many ranks. Every rank makes the same
 * whole from the same seed, and takes its own part of it.
 */
#ifndef TESTS_MPI_RANKS_CASE_H
#define TESTS_MPI_RANKS_CASE_H

#include <stddef.h>
#include <stdint.h>

#include <attention/mpi.h>

#include "support/oracle_sdpa.h"
#include "support/random_tensor.h"

/* Queries, keys and masks, with options that go with them; NULL what there is not. */
typedef struct ranks_tensors {
    attn_tensor *query, *key, *value, *mask, *bias, *query_offset, *key_lengths, *mask_start;
    attn_tensor *alibi_slopes, *sinks, *position_bias, *block_mask, *output, *lse;
} ranks_tensors;

/* No value is larger. */
enum { RANKS_LARGEST_VALUE = 2 };

typedef struct ranks_case {
    int rank, num_ranks;
    attn_mpi_params mpi_params;
    attn_sdpa_params params; /* without tensors */
    attn_dropout dropout;
    ranks_tensors whole, own;
    int64_t *query_rows, *key_rows; /* of the whole, those this rank has, in its order */
    int64_t num_query_rows, num_key_rows;
    tensor_pool whole_pool, own_pool;
    char text[200]; /* says what it is */
} ranks_case;

/* Seeds give schemes, placements and normalizers in turn, everything else at random. */
void ranks_case_make(uint64_t seed, int rank, int num_ranks, ranks_case *made);
void ranks_case_destroy(ranks_case *made);

/* Some rows of the whole along an axis, counted from the end, as a tensor of the own pool in a
 * layout of its own; all of them for count < 0. */
attn_tensor *ranks_take_rows(ranks_case *made, random_state *random, const attn_tensor *tensor,
                             int32_t axis, const int64_t *rows, int64_t count, int is_output);

/* params with the tensors of whole or own. */
attn_sdpa_params ranks_case_params(const ranks_case *made, const ranks_tensors *tensors);

/* The rank's results against the oracle's of the whole, within the bound that ranks_compare.c
 * derives. Returns 0, or 1 and a line in `message`. */
int ranks_case_compare(const ranks_case *made, const char *kernels, compare_stats *stats,
                       char *message, size_t message_bytes);

#endif
