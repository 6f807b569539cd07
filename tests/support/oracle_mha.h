/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_mha.h: the text of attention/multihead.h in float64: project, attend head by head,
 * project.
 */
#ifndef ATTENTION_TESTS_ORACLE_MHA_H
#define ATTENTION_TESTS_ORACLE_MHA_H

#include <attention/multihead.h>

#include "support/oracle_attention.h"

/* A parameter under one of the names multihead.h lists. Its values count as rounded to the
 * parameters' type, or are int8, with a scale for each row. */
typedef struct oracle_parameter {
    const char *name;
    attn_tensor values;
    attn_tensor scale;
} oracle_parameter;

/* The sizes of a layer with every default resolved. */
typedef struct oracle_mha_sizes {
    int64_t embed_dim, num_heads, num_kv_heads, head_dim, value_head_dim;
    int64_t qdim, kdim, vdim;
    int64_t query_rows, key_rows, value_rows; /* rows of the three projections: H D, Hk D, Hk Dv */
    int64_t extra_keys;
    int32_t dtype, parameter_dtype;
    int has_bias, is_packed;
} oracle_mha_sizes;

oracle_mha_sizes oracle_mha_resolve(const attn_mha_config *config);

typedef struct oracle_mha_result {
    oracle_array output; /* (N, L, embed_dim), whatever batch_first says */
    oracle_result inner; /* of the attention inside: lse (N, H, L), weights (N, H, L, T), their mean
                            (N, L, T) */
} oracle_mha_result;

/* attn_mha_forward for valid arguments; params may be NULL. */
oracle_mha_result oracle_mha(const attn_mha_config *config, const oracle_parameter *parameters,
                             int64_t num_parameters, const attn_tensor *query,
                             const attn_tensor *key, const attn_tensor *value,
                             const attn_mha_params *params);

/* oracle_hidden_keys of the attention inside, (N, S), freed by the caller. */
unsigned char *oracle_mha_hidden_keys(const attn_mha_config *config, const attn_tensor *query,
                                      const attn_tensor *key, const attn_mha_params *params);
void oracle_mha_result_destroy(oracle_mha_result *result);

#endif
