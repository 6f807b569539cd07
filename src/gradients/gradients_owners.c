/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_owners.c: a gradient's matrices by the strides of its operand.
 */
#include "gradients/gradients_owners.h"

static bool repeats(const attni_gradient_owners *owners, int32_t axis) {
    return owners->strides[axis] == 0 && !owners->has_own_rows;
}

attni_gradient_owners attni_gradient_owners_of(const attni_sdpa_problem *problem,
                                               const int64_t *strides, bool has_own_rows,
                                               int64_t head_uses) {
    attni_gradient_owners owners = {
        .problem = problem,
        .strides = strides,
        .has_own_rows = has_own_rows,
        .batches = 1,
        .batch_uses = 1,
        .head_uses = head_uses,
    };
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        *(repeats(&owners, axis) ? &owners.batch_uses : &owners.batches) *=
            problem->batch_shape[axis];
    }
    if (head_uses == 0) {
        owners.head_uses = strides[problem->batch_rank] == 0 ? problem->num_heads : 1;
    }
    owners.heads = problem->num_heads / (owners.head_uses > 0 ? owners.head_uses : 1);
    return owners;
}

int64_t attni_gradient_batch(const attni_gradient_owners *owners, int64_t batch, int64_t use) {
    const attni_sdpa_problem *problem = owners->problem;
    int64_t number = 0;
    int64_t step = 1;
    for (int32_t axis = problem->batch_rank - 1; axis >= 0; --axis) {
        const int64_t length = problem->batch_shape[axis];
        int64_t *left = repeats(owners, axis) ? &use : &batch;
        number += *left % length * step;
        *left /= length;
        step *= length;
    }
    return number;
}

attni_gradient_owners attni_query_owners(const attni_sdpa_problem *gradients) {
    return attni_gradient_owners_of(gradients, gradients->query.strides,
                                    gradients->query_starts.is_present, 0);
}

attni_gradient_owners attni_key_owners(const attni_sdpa_problem *gradients) {
    return attni_gradient_owners_of(gradients, gradients->key.strides,
                                    gradients->key_starts.is_present, gradients->key_group);
}

attni_gradient_owners attni_value_owners(const attni_sdpa_problem *gradients) {
    return attni_gradient_owners_of(gradients, gradients->value.strides,
                                    gradients->key_starts.is_present, gradients->value_group);
}

attni_gradient_owners attni_mask_owners(const attni_sdpa_problem *gradients,
                                        const attni_mask *mask) {
    const bool has_rows = mask->strides[gradients->batch_rank + 1] != 0;
    return attni_gradient_owners_of(gradients, mask->strides,
                                    gradients->query_starts.is_present && has_rows, 0);
}
