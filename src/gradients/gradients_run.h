/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_run.h: a planned backward pass is computed.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_RUN_H
#define ATTNI_GRADIENTS_GRADIENTS_RUN_H

#include "gradients/gradients_plan.h"

/* `scratch` is a block of the plan's layout. Fails as attni_start_threads, before anything is
 * written, and as attni_parallel_items where a caller's parallel_for refuses. */
attn_status attni_gradients_run(attn_context *context, const attni_gradients_problem *problem,
                                const attni_gradients_plan *plan, char *scratch);

#endif
