/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_element.h: elements of integers, as tensor.h has them. An index counts values, of which
 * an element may have several.
 */
#ifndef QUANTIZED_ELEMENT_H
#define QUANTIZED_ELEMENT_H

#include <attention/tensor.h>

#include "support/random.h"

/* Any that the type can store. */
int32_t quantized_random_level(random_state *random, int32_t dtype);

/* Leaves the other values of the element as they are. */
void quantized_store_level(const attn_tensor *tensor, const int64_t *index, int32_t level);

/* The scale of the block that has the value, drawn at the block's first one: half to one and a half
 * steps of 1 / 128, or of 1 / 8 where elements have 4 bits. */
double quantized_store_block_scale(random_state *random, const attn_tensor *tensor,
                                   const int64_t *index);

/* The element that has a value, in another tensor. */
void quantized_copy_element(const attn_tensor *to, const int64_t *to_index, const attn_tensor *from,
                            const int64_t *from_index);

#endif
