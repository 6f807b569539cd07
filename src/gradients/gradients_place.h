/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_place.h: a checked backward pass whose tensors have no memory until it runs, as a
 * layer's, and its keys in two parts.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_PLACE_H
#define ATTNI_GRADIENTS_GRADIENTS_PLACE_H

#include "gradients/gradients_problem.h"

/* Addresses of the tensors of a call and of their gradients. */
typedef struct attni_gradients_data {
    void *inputs[ATTNI_NUM_SUMMED]; /* query, key, value */
    void *output;
    void *lse;
    void *output_gradient;
    void *gradients[ATTNI_NUM_SUMMED]; /* those that are not wanted: NULL */
} attni_gradients_data;

void attni_gradients_place(attni_gradients_problem *problem, const attni_gradients_data *data);

/* Takes the extra columns out of a problem, and makes them the keys of another, which every row
 * sees. The weights are those of all keys in both, since lse and the output are. Gradients of
 * options stay with the first; the second adds to query's what the first has written.
 * The gradients of the extra keys and values are on their axes, or NULL. */
void attni_gradients_part_extra(attni_gradients_problem *problem, attni_gradients_problem *extra,
                                const attn_tensor *extra_key_gradient,
                                const attn_tensor *extra_value_gradient);

#endif
