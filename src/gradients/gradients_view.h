/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_view.h: one sequence of a backward pass, and where what belongs to it is.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_VIEW_H
#define ATTNI_GRADIENTS_GRADIENTS_VIEW_H

#include "gradients/gradients_state.h"

/* An item in a slot's scratch memory, nowhere yet. */
void attni_gradients_enter(const attni_gradients_engine *engine, int32_t slot,
                           attni_gradients_item *item);

/* Goes to a sequence; numbers that another thread may write are read here, once. */
void attni_gradients_go_to(attni_gradients_item *item, int64_t batch);

/* Row `row` of a head among all rows of the call, which arrays of the pass have one of each for. */
int64_t attni_gradients_row_number(const attni_gradients_item *item, int64_t head, int64_t row);

/* What is taken off the gradients of that row's weights. */
double *attni_gradients_means(const attni_gradients_item *item, int64_t head, int64_t row);

/* Where a row of one of the sums is kept until all is summed. */
char *attni_gradients_staged_row(const attni_gradients_item *item, int32_t which, int64_t head,
                                 int64_t row);

/* The lse of rows [first, first + count) of a head; softmax. */
void attni_gradients_take_lse(const attni_gradients_item *item, int64_t head, int64_t first,
                              int64_t count, double *lse);

#endif
