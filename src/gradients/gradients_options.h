/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_options.h: the gradients of masks, biases, slopes and sinks: sums of those of the
 * scores over all rows, keys, batches and heads that share an element.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_OPTIONS_H
#define ATTNI_GRADIENTS_GRADIENTS_OPTIONS_H

#include "gradients/gradients_state.h"

/* One of them. */
typedef enum attni_gradient_option {
    ATTNI_OF_MASK, /* or bias: that of `mask` */
    ATTNI_OF_DISTANCES,
    ATTNI_OF_SLOPES,
    ATTNI_OF_SINKS
} attni_gradient_option;

typedef struct attni_gradients_option {
    const attni_gradients_engine *engine;
    attni_gradient_option option;
    int32_t mask; /* its number among masks */
} attni_gradients_option;

int64_t attni_gradients_option_items(const attni_gradients_option *option);

/* `data` is an attni_gradients_option. */
void attni_gradients_option_item(void *data, int32_t slot, int64_t index);

#endif
