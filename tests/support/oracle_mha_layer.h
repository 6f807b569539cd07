/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_mha_layer.h: the parts of oracle_mha.c that a layer's gradients need again.
 */
#ifndef ATTENTION_TESTS_ORACLE_MHA_LAYER_H
#define ATTENTION_TESTS_ORACLE_MHA_LAYER_H

#include "support/oracle_mha.h"

typedef struct oracle_layer {
    oracle_mha_sizes sizes;
    const attn_mha_config *config;
    const attn_rope_params *rope; /* or NULL */
    int is_batched;
    bound_rounding rounding;
    const oracle_parameter *parameters;
    int64_t num_parameters;
} oracle_layer;

oracle_layer oracle_layer_of(const attn_mha_config *config, const oracle_parameter *parameters,
                             int64_t num_parameters, const attn_tensor *query,
                             const attn_mha_params *params);

/* A parameter's values in C order, as the parameters' type holds them, freed by the caller; NULL if
 * there is none of that name. */
double *oracle_layer_parameter(const oracle_layer *layer, const char *name);

/* `count` values from the parameter of its own, else from position `start` of the packed one, else
 * NULL. */
double *oracle_layer_part(const oracle_layer *layer, const char *own_name, const char *packed_name,
                          int64_t start, int64_t count);

/* A query, key or value of any form as (N, length, features). */
attn_tensor oracle_batch_major(const attn_tensor *tensor, int batch_first);

/* Names of a projection's parameters. */
typedef struct oracle_projection {
    const char *weight, *bias;
} oracle_projection;

/* One of the three input projections of a view as above; `start` is its first row in the packed
 * parameters. */
oracle_array oracle_layer_project(const oracle_layer *layer, const attn_tensor *input,
                                  oracle_projection names, int64_t start, int64_t outputs);

/* The attention inside, of such views. */
oracle_problem oracle_layer_problem(const oracle_layer *layer, const attn_tensor *query,
                                    const attn_tensor *key, const attn_tensor *value,
                                    const attn_mha_params *params);

#endif
