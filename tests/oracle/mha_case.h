/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_case.h: attn_mha_forward calls as cases of factors: the shared ones, the fields of
 * attn_mha_config and attn_mha_params, and the ways to give a layer its parameters.
 */
#ifndef ATTENTION_TESTS_MHA_CASE_H
#define ATTENTION_TESTS_MHA_CASE_H

#include <attention/multihead.h>

#include "call_factors.h"
#include "call_run.h"
#include "support/oracle_mha.h"
#include "support/random_tensor.h"

enum mha_factor {
    MHA_FORM = NUM_SHARED_FACTORS,
    MHA_BATCH,
    MHA_SIZES,
    MHA_QDIM,
    MHA_KDIM,
    MHA_VDIM,
    MHA_NO_BIAS,
    MHA_BIAS_KV,
    MHA_ZERO_ATTN,
    MHA_MASK_FORM,
    MHA_PADDING,
    MHA_PADDING_LAYOUT,
    MHA_ATTENTION,
    MHA_STORAGE,
    MHA_NAMES,
    MHA_HIDDEN,
    MHA_PARAMETER_TYPE, /* enum stored_level, or PARAMETERS_INT8: config.parameter_dtype */
    MHA_OUTPUT_TYPE,    /* enum result_level */
    MHA_WEIGHTS_TYPE,
    MHA_QK_NORM, /* enum attn_qk_norm */
    MHA_ROPE,
    NUM_MHA_FACTORS
};

enum form_level { FORM_SEQUENCE_FIRST, FORM_BATCH_FIRST, FORM_UNBATCHED };
enum mask_form_level {
    MASK_FORM_NONE,
    MASK_FORM_MATRIX,  /* (L, S) */
    MASK_FORM_STACKED, /* (N * H, L, S) */
    MASK_FORM_FULL,    /* (N, H, L, S) */
    MASK_FORM_HEADS,   /* (1, H, L, S) */
    MASK_FORM_BATCHES, /* (N, 1, L, S) */
    MASK_FORM_ONE,     /* (1, 1, L, S) */
    NUM_MASK_FORMS
};
enum attention_level { ATTENTION_PRESENT, ATTENTION_ABSENT /* params.attention is NULL */ };
enum storage_level {
    STORAGE_COPIED,
    STORAGE_COPIED_STRIDED,
    STORAGE_COPIED_CONVERTED, /* from another float type */
    STORAGE_BOUND,
    STORAGE_BOUND_TRANSPOSED,
    STORAGE_BOUND_REVERSED,
    STORAGE_BOUND_UNALIGNED,
    STORAGE_MIXED /* every second one bound */
};
enum rope_level {
    MHA_ROPE_NONE,
    MHA_ROPE_BASE,
    MHA_ROPE_LENGTHS /* half of the features, neighbours */
};
enum parameter_type_level { PARAMETERS_INT8 = NUM_STORED_LEVELS, NUM_PARAMETER_TYPES };
enum names_level { NAMES_STATE_DICT, NAMES_SEPARATE_WEIGHTS, NAMES_SEPARATE };

enum { MAX_PARAMETERS = 14 };

/* One call with its layer's description and tensors. */
typedef struct mha_call {
    tensor_pool pool;
    attn_mha_config config;
    oracle_parameter parameters[MAX_PARAMETERS];
    int is_bound[MAX_PARAMETERS];
    int num_parameters;
    const attn_tensor *query, *key, *value, *output;
    attn_tensor seen_key, seen_value; /* what the oracle gets: zeros in rows that no query sees */
    attn_sdpa_params attention;
    attn_rope_params rope;
    attn_mha_params params;
    const attn_mha_params *given_params; /* &params or NULL */
} mha_call;

factor_set mha_factor_set(void);

/* config.parameter_dtype of a level of MHA_PARAMETER_TYPE, where that of the tensors is `own`. */
int32_t mha_parameter_dtype(int level, int32_t own);

/* `call` must stay where it is: it holds pointers into itself. */
void mha_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, mha_call *call);
void mha_call_destroy(mha_call *call);

/* Fills in the parameters of call->config, stored and named as the case says. */
void mha_case_parameters(const factor_case *chosen, random_state *random, mha_call *call);

/* Puts NaN and infinity where the case wants them, and makes the tensors for the oracle. */
void mha_case_poison(const factor_case *chosen, random_state *random, mha_call *call);

/* A layer with the call's parameters loaded or bound; NULL and the outcome's message if a step
 * fails. */
attn_mha *mha_call_layer(const mha_call *call, call_outcome *outcome);

/* Calls the library and compares everything it gives: mha_case_run of a call that is built. */
int mha_call_run(const factor_set *set, const factor_case *chosen, mha_call *call,
                 call_outcome *outcome);

/* A case_runner. */
int mha_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                 call_outcome *outcome);

#endif
