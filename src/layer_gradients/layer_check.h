/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_check.h: the argument errors of a layer's gradients but those of the attention inside, which
 * the plan finds, and overlap.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_CHECK_H
#define ATTNI_LAYER_GRADIENTS_LAYER_CHECK_H

#include "gradients/gradients_check.h"
#include "layer_gradients/layer_problem.h"

/* gradients.attention.lse, ... */
extern const attni_gradients_names attni_names_of_layer_gradients;

/* `request` has no output. */
attn_status attni_layer_check(const attni_mha_request *request, const attn_mha_gradients *given,
                              attni_layer_problem *problem);

/* Overlap, and what is saved, once all is planned. */
attn_status attni_layer_check_memory(const attni_layer_problem *problem,
                                     const attni_layer_plan *plan, const void *workspace);

#endif
