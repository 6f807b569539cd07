/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_names.h: which tensors of a file are an attention layer's parameters. Models name them
 * differently; the ways are rows of one table (layer_names.c), each row a name, or none, per role.
 */
#ifndef ATTN_CLI_LAYER_NAMES_H
#define ATTN_CLI_LAYER_NAMES_H

#include <stddef.h>

#include "safetensors_read.h"

/* What a tensor is to the layer, in the order the parameters are loaded. */
enum layer_role {
    ROLE_IN_WEIGHT, /* rows of query, key and value in one matrix; a naming has either this or the
                       three after it */
    ROLE_Q_WEIGHT,
    ROLE_K_WEIGHT,
    ROLE_V_WEIGHT,
    ROLE_OUT_WEIGHT,
    ROLE_IN_BIAS,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_OUT_BIAS,
    ROLE_BIAS_K, /* the learned extra key and value of add_bias_kv */
    ROLE_BIAS_V,
    LAYER_ROLE_COUNT
};

/* One way of naming. Weights that have a name must be in the file; biases may be. */
typedef struct layer_naming {
    const char *title; /* for people */
    const char *names[LAYER_ROLE_COUNT];
    const char *next_module; /* what stands among these names and computes with the layer's output,
                                not in it: such names begin so; or NULL */
} layer_naming;

/* The layer found in a file. The entries belong to the file. */
typedef struct layer_names {
    const layer_naming *naming;
    const safetensors_entry *entries[LAYER_ROLE_COUNT]; /* NULL where there is none */
} layer_names;

/* The role's name as the library calls it: "in_proj_weight", "q_proj_bias", ... */
const char *layer_role_parameter(int role);

/*
 * Finds the layer whose tensors are named prefix + name, with a '.' added to the prefix if it
 * matches only so. 0: *found is filled. -1: `error` holds one line that says what is missing, or
 * else under which prefixes the file has layers.
 */
int layer_names_recognise(const safetensors_file *file, const char *prefix, layer_names *found,
                          char *error, size_t error_bytes);

/* The bytes of the prefix before the layer's names, with the '.' that was added. */
size_t layer_names_prefix_bytes(const layer_names *found);

/*
 * 1 if a tensor of the file stands under the layer's prefix and is nothing that is known: no
 * parameter, not of the naming's next module, and, in a file of one layer without a prefix, none of
 * the inputs and results that are kept beside it, nor flags. What the layer computes may depend on
 * it.
 */
int layer_names_leave_over(const layer_names *found, const safetensors_entry *entry);

#endif
