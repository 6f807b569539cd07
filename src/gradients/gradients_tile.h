/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_tile.h: the rows and keys at hand meet: scores are computed again, become weights, and
 * have a gradient.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_TILE_H
#define ATTNI_GRADIENTS_GRADIENTS_TILE_H

#include "gradients/gradients_state.h"

/* scores = scale * Q K^T, after softcap, ALiBi and masks: into tile.weights, -inf where a row does
 * not see a key, and 0 outside tile.seen, which it sets. */
void attni_gradients_score(attni_gradients_item *item);

/* The gradient of the weights that the call returned, for a row of the tile: added to `row`, which
 * begins with the row's first seen key. */
void attni_gradients_add_weights(const attni_gradients_item *item, int64_t index, char *row);

/* Weights and the gradient of the scores: exactly 0 where a row does not see a key. */
void attni_gradients_compute(attni_gradients_item *item, attni_gradient_depth depth);

/* Elements [begin, end) of a row of the tile's weights, or of the other. */
char *attni_gradients_at(const attni_gradients_item *item, char *matrix, int64_t row, int64_t key);

#endif
