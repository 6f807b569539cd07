/* SPDX-License-Identifier: BSD-3-Clause
 *
 * made_tensors.h: the random inputs of a made case, and its results from the float64 oracle of the
 * tests.
 */
#ifndef INTEROP_MADE_TENSORS_H
#define INTEROP_MADE_TENSORS_H

#include <stdio.h>

#include "support/oracle_tensor.h"
#include "support/random_tensor.h"

/* A contiguous input, random in [-2, 2). */
attn_tensor *made_input(tensor_pool *pool, random_state *random, int32_t dtype, int32_t rank,
                        const int64_t *shape);

/* Replaces elements by -inf, each with the probability given. */
void made_hide(const attn_tensor *tensor, random_state *random, double probability);

/* Writes what is expected of a result that the call stores as `dtype`: 16 bits round it once more.
 * Whatever the bound on the rounding error of an element, one tolerance serves all. */
void made_result(FILE *file, const char *name, int32_t dtype, int32_t rank, const int64_t *shape,
                 const oracle_array *result);

#endif
