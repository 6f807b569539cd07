/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_owners.h: which of a call's batches and heads add to one gradient. What repeats in the
 * call has one matrix for several of them, and its gradient is the sum, in their order.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_OWNERS_H
#define ATTNI_GRADIENTS_GRADIENTS_OWNERS_H

#include "gradients/gradients_problem.h"

/* Matrices of a gradient, by a number of batches and one of heads, and by how many of the call's
 * each is used. */
typedef struct attni_gradient_owners {
    const attni_sdpa_problem *problem;
    const int64_t *strides; /* on the canonical axes; 0 along a batch axis: it repeats */
    bool has_own_rows;      /* of every sequence: nothing repeats along batches */
    int64_t batches;
    int64_t batch_uses;
    int64_t heads;
    int64_t head_uses; /* neighbours */
} attni_gradient_owners;

/* head_uses 0: one of its own for each head, or one for all where the stride is 0. */
attni_gradient_owners attni_gradient_owners_of(const attni_sdpa_problem *problem,
                                               const int64_t *strides, bool has_own_rows,
                                               int64_t head_uses);

/* The call's batch that uses matrix `batch` as the use-th: ascending with it. */
int64_t attni_gradient_batch(const attni_gradient_owners *owners, int64_t batch, int64_t use);

/* Those of the gradients of query, key and value, and of a mask. */
attni_gradient_owners attni_query_owners(const attni_sdpa_problem *gradients);
attni_gradient_owners attni_key_owners(const attni_sdpa_problem *gradients);
attni_gradient_owners attni_value_owners(const attni_sdpa_problem *gradients);
attni_gradient_owners attni_mask_owners(const attni_sdpa_problem *gradients,
                                        const attni_mask *mask);

#endif
