/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_run.h: planned gradients of a layer are computed.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_RUN_H
#define ATTNI_LAYER_GRADIENTS_LAYER_RUN_H

#include "layer_gradients/layer_problem.h"

/* `scratch` is a block of the plan's layout. Fails before anything is written, but where a caller's
 * parallel_for refuses. */
attn_status attni_layer_run(attn_context *context, const attni_layer_problem *problem,
                            attni_layer_plan *plan, char *scratch);

#endif
