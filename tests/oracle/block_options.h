/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_options.h: masks by blocks of the cases.
 */
#ifndef ATTENTION_TESTS_BLOCK_OPTIONS_H
#define ATTENTION_TESTS_BLOCK_OPTIONS_H

#include "attention_options.h"

/* Sets block_mask, block_rows and block_columns to those of a level of enum blocks_level. */
void build_blocks(int level, const option_shape *shape, tensor_pool *pool, random_state *random,
                  attn_sdpa_params *params);

#endif
