/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_means.h: before the gradients: what softmax takes off a row's.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_MEANS_H
#define ATTNI_GRADIENTS_GRADIENTS_MEANS_H

#include <stdint.h>

/* Item `index` of (batch, head, block of rows): means = rowsum(dO O), plus rowsum(P dP) of returned
 * weights, less the gradient of lse; 0 for an empty row. And 0 in the rows where query's gradient is
 * summed. `data` is an attni_gradients_engine. */
void attni_gradients_means_item(void *data, int32_t slot, int64_t index);

#endif
