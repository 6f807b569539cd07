/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_sizes.h: an attention layer's sizes from the shapes of its weights.
 */
#ifndef ATTN_CLI_LAYER_SIZES_H
#define ATTN_CLI_LAYER_SIZES_H

#include <stddef.h>
#include <stdint.h>

#include <attention/multihead.h>

#include "layer_names.h"

/*
 * Fills embed_dim, qdim, kdim, vdim, num_kv_heads, head_dim, value_head_dim and bias of `config`,
 * whose num_heads is set and whose other head sizes are set (the command line's, which must then
 * agree with the shapes) or 0.
 *
 *     embed_dim       rows of the output projection
 *     value_head_dim  its columns / num_heads
 *     head_dim        rows of the query projection / num_heads
 *     num_kv_heads    rows of the key projection / head_dim
 *
 * A packed matrix has num_heads * head_dim + num_kv_heads * (head_dim + value_head_dim) rows; where
 * nothing more is given, head_dim is taken to be value_head_dim, as in every model known to pack.
 *
 * 0, or -1 with one line in `error` that names the tensor.
 */
int layer_sizes_derive(const layer_names *names, attn_mha_config *config, char *error,
                       size_t error_bytes);

#endif
