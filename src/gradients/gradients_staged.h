/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_staged.h: gradients that were summed apart, of query, key or value: the sums of all
 * batches and heads that share one are added in their order, rounded and written.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_STAGED_H
#define ATTNI_GRADIENTS_GRADIENTS_STAGED_H

#include "gradients/gradients_state.h"

/* One of the sums. */
typedef struct attni_gradients_staged {
    const attni_gradients_engine *engine;
    int32_t which;
} attni_gradients_staged;

int64_t attni_gradients_staged_items(const attni_gradients_staged *staged);

/* `data` is an attni_gradients_staged. */
void attni_gradients_staged_item(void *data, int32_t slot, int64_t index);

#endif
