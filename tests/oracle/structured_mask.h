/* SPDX-License-Identifier: BSD-3-Clause
 *
 * structured_mask.h: masks that hide, show or mix whole blocks of (rows, keys), whose borders lie
 * where the fused engine's tiles, panels and chunks have theirs, or beside.
 */
#ifndef ATTENTION_TESTS_STRUCTURED_MASK_H
#define ATTENTION_TESTS_STRUCTURED_MASK_H

#include <attention/attention.h>

#include "support/random_tensor.h"

/* A mask of a kind for scores (batch, heads, rows, keys), of a shape that broadcasts to them and in
 * any layout; an additive one is stored as `dtype`. */
attn_tensor *structured_mask(tensor_pool *pool, random_state *random, int32_t kind, int32_t dtype,
                             const int64_t scores[4]);

/* A length at, or one beside, a multiple of where tiles, panels or chunks begin; 1 to most. */
int64_t length_at_border(random_state *random, int64_t most);

#endif
