/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_mha_gradients.h: the text of attention/multihead_backward.h in float64.
 *
 * THE ERROR BOUND carries on from oracle_mha.h and oracle_gradients.h: a product with a weight is a
 * dot product of factors that are off, as are those that weights' gradients are; a sum over rows,
 * batches or heads that share a parameter adds one rounding a term. What a norm's row x is divided
 * by is between the roots of its mean square with every |x| larger and smaller by its error.
 */
#ifndef ATTENTION_TESTS_ORACLE_MHA_GRADIENTS_H
#define ATTENTION_TESTS_ORACLE_MHA_GRADIENTS_H

#include "support/oracle_gradients.h"
#include "support/oracle_mha.h"

/* The parameters of a layer one by one, as multihead.h names them when they are not packed. */
enum oracle_parameter_part {
    ORACLE_Q_WEIGHT,
    ORACLE_K_WEIGHT,
    ORACLE_V_WEIGHT,
    ORACLE_Q_BIAS,
    ORACLE_K_BIAS,
    ORACLE_V_BIAS,
    ORACLE_BIAS_K,
    ORACLE_BIAS_V,
    ORACLE_O_WEIGHT,
    ORACLE_O_BIAS,
    ORACLE_Q_NORM,
    ORACLE_K_NORM,
    ORACLE_NUM_PARTS
};

typedef struct oracle_mha_gradients {
    oracle_array inputs[3];               /* query, key, value: (N, rows, features) */
    oracle_array parts[ORACLE_NUM_PARTS]; /* count 0: the layer has none */
    oracle_gradients inner;               /* of the attention inside */
    unsigned char *blocks;                /* of the attention inside, as oracle_problem has them */
    int64_t num_visible;                  /* as oracle_result has it */
} oracle_mha_gradients;

/* Of a call as oracle_mha has it. `output` is the gradient of its output, in its form; lse (N, H, L)
 * and weights (N, H, L, T) those of results, or NULL. */
oracle_mha_gradients oracle_mha_backward(const attn_mha_config *config,
                                         const oracle_parameter *parameters, int64_t num_parameters,
                                         const attn_tensor *query, const attn_tensor *key,
                                         const attn_tensor *value, const attn_mha_params *params,
                                         const attn_tensor *output, const double *lse,
                                         const double *weights);
void oracle_mha_gradients_destroy(oracle_mha_gradients *gradients);

#endif
