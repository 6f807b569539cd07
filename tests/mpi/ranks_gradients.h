/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_gradients.h: a case with its gradients: what is given beside that of output, what is
 * wanted, in which type and layout, and whether it is added to what is there, follows from the
 * seed.
 */
#ifndef TESTS_MPI_RANKS_GRADIENTS_H
#define TESTS_MPI_RANKS_GRADIENTS_H

#include "ranks_case.h"
#include "support/oracle_input_gradients.h"

/* Of the whole, the same on all ranks, or a rank's own. */
typedef struct ranks_gradient_tensors {
    attn_tensor *output, *lse;                   /* what the forward call wrote */
    attn_tensor *output_gradient, *lse_gradient; /* given; the latter or NULL */
    attn_tensor *wanted[ORACLE_NUM_GRADIENTS];   /* or NULL */
} ranks_gradient_tensors;

typedef struct ranks_gradients {
    ranks_case made;
    ranks_gradient_tensors whole, own; /* whole.wanted: what is there before */
    int accumulates;
} ranks_gradients;

/* The forward call of the whole is computed on every rank. */
void ranks_gradients_make(uint64_t seed, int rank, int num_ranks, attn_context *context,
                          ranks_gradients *made);
void ranks_gradients_destroy(ranks_gradients *made);

/* The arguments of the rank's own call, params and gradients. */
attn_sdpa_params ranks_gradients_params(const ranks_gradients *made);
attn_sdpa_gradients ranks_gradients_of(const ranks_gradients *made);

/* What is wanted holds what it held before once more. */
void ranks_gradients_reset(const ranks_gradients *made);

/* The rank's results against the oracle's of the whole: sums are of the same terms in another
 * order, which its bound allows for. Returns 0, or 1 and a line in `message`. */
int ranks_gradients_compare(const ranks_gradients *made, const char *kernels, compare_stats *stats,
                            char *message, size_t message_bytes);

#endif
