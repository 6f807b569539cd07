/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_attention.h: the gradients of the attention inside a layer, and back through what was done
 * to projected queries and keys before it.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_ATTENTION_H
#define ATTNI_LAYER_GRADIENTS_LAYER_ATTENTION_H

#include "layer_gradients/layer_problem.h"

/* Finds every error of the attention's options and gradients, and adds the scratch memory that its
 * step needs. The plan's heads are there. */
attn_status attni_layer_attention_plan(const attn_context *context,
                                       const attni_layer_problem *problem, attni_layer_plan *plan,
                                       attni_layout *step);

/* From the context's gradient to those of queries, keys, values and extra columns. */
attn_status attni_layer_attention_run(attn_context *context, const attni_layer_problem *problem,
                                      attni_layer_plan *plan, char *scratch);

/* From there to those of what was projected, in place, and the weights of norms. */
attn_status attni_layer_positions_run(attn_context *context, const attni_layer_problem *problem,
                                      attni_layer_plan *plan, char *scratch);

#endif
