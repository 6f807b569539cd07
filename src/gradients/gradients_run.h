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

/* The same in two steps, for a call whose keys are divided among problems: what softmax takes off a
 * row's gradients is found for all of them before the gradients of any. Each begins with the means
 * of the one before, NULL for the first, and finishes with those of the last. They are an array of
 * (batches, heads, rows) in `scratch`, unless the problem is zero. */
attn_status attni_gradients_begin(attn_context *context, const attni_gradients_problem *problem,
                                  const attni_gradients_plan *plan, char *scratch,
                                  const double *means_before);
attn_status attni_gradients_finish(attn_context *context, const attni_gradients_problem *problem,
                                   const attni_gradients_plan *plan, char *scratch);
double *attni_gradients_means_of(const attni_gradients_plan *plan, char *scratch);

#endif
