/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_plan.h: the steps of a layer's gradients and their memory.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_PLAN_H
#define ATTNI_LAYER_GRADIENTS_LAYER_PLAN_H

#include "layer_gradients/layer_problem.h"

/* Also finds the errors of the attention inside, and of rope. */
attn_status attni_layer_make_plan(const attn_context *context, const attni_layer_problem *problem,
                                  attni_layer_plan *plan);

#endif
