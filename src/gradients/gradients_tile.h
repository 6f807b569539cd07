/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_tile.h: the rows and keys at hand meet: scores are computed again, become weights, and
 * have a gradient.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_TILE_H
#define ATTNI_GRADIENTS_GRADIENTS_TILE_H

#include "gradients/gradients_state.h"

/* Where not every row sees all keys, products take a band of rows, or of keys, at a time, and leave
 * out what none of it sees, or is seen by. */
enum { ATTNI_BAND_ROWS = 24, ATTNI_BAND_KEYS = 48 };

/* scores = scale * Q K^T, after softcap, ALiBi and masks: into tile.weights, -inf where a mask hides
 * a key, and 0 outside tile.seen, which it sets. Returns whether some row sees a key. */
bool attni_gradients_score(attni_gradients_item *item);

/* The gradient of the weights that the call returned, for a row of the tile: added to `row`, which
 * begins with the row's first seen key. */
void attni_gradients_add_weights(const attni_gradients_item *item, int64_t index, char *row);

/* Dropout of a row of weights, or of their gradient, likewise. */
void attni_gradients_drop(const attni_gradients_item *item, int64_t index, char *row);

/* Weights and the gradient of the scores: exactly 0 where a row does not see a key. Returns false,
 * and leaves them open, if no row sees any. */
bool attni_gradients_compute(attni_gradients_item *item, attni_gradient_depth depth);

/* How many of `count` rows, or keys, from `first` on make the next band, of `size` at most: all of
 * them, unless some rows do not see all keys. */
int64_t attni_gradients_band(const attni_gradients_item *item, int64_t first, int64_t count,
                             int64_t size);

/* Keys from the first to the last that one of rows [first, first + count) sees, and rows from the
 * first to the last that see one of `keys`: an empty interval if there is none. */
attni_interval attni_gradients_band_keys(const attni_gradients_item *item, int64_t first,
                                         int64_t count);
attni_interval attni_gradients_band_rows(const attni_gradients_item *item, attni_interval keys);

/* Element (row, key) of tile.weights or tile.scores. */
char *attni_gradients_at(const attni_gradients_item *item, char *matrix, int64_t row, int64_t key);

#endif
