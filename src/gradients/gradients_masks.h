/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_masks.h: gradients of masks and biases that are summed where they are, in the pass of
 * query, key and value. What several batches or heads share gets their terms in their order, pair by
 * pair, which the pass sees to.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_MASKS_H
#define ATTNI_GRADIENTS_GRADIENTS_MASKS_H

#include "gradients/gradients_state.h"

/* Items that clear them: `data` is an attni_gradients_engine. */
int64_t attni_gradients_mask_clear_items(const attni_gradients_engine *engine);
void attni_gradients_mask_clear_item(void *data, int32_t slot, int64_t index);

/* Adds the gradient of the scores of a row of the tile, from its first seen key on. */
void attni_gradients_add_to_masks(const attni_gradients_item *item, int64_t index,
                                  const char *gradient);

#endif
