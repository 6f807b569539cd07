/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_load.h: a layer of a file as an attn_mha. Sizes come from the weights' shapes; what shapes
 * cannot tell, from the command line or the file's metadata (num_heads, batch_first,
 * add_zero_attn).
 */
#ifndef ATTN_CLI_LAYER_LOAD_H
#define ATTN_CLI_LAYER_LOAD_H

#include <attention/context.h>
#include <attention/multihead.h>

#include "layer_names.h"
#include "run_options.h"
#include "safetensors_read.h"

typedef struct loaded_layer {
    safetensors_file *file;
    layer_names names;
    attn_mha_config config; /* every size filled in */
    attn_mha *layer;
} loaded_layer;

/* Opens the file and makes the layer. EXIT_DONE, or another exit code after an error line;
 * loaded_layer_free is due in every case. */
int layer_load(const run_options *options, attn_context *context, loaded_layer *loaded);

/* Frees the layer and closes the file. */
void loaded_layer_free(loaded_layer *loaded);

#endif
