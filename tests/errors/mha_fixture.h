/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_fixture.h: a layer with parameters and a valid forward call with a view of every optional
 * tensor at hand, for suites that spoil one thing of them.
 *
 * The layer has separate weights (kdim, vdim differ from embed_dim), bias, batch_first.
 * out_proj.weight is bound, the others copied.
 */
#ifndef TESTS_ERRORS_MHA_FIXTURE_H
#define TESTS_ERRORS_MHA_FIXTURE_H

#include "refusal.h"

enum {
    MHA_N = 2,
    MHA_H = 2,
    MHA_L = 3,
    MHA_S = 4,
    MHA_E = 8,
    MHA_KDIM = 6,
    MHA_VDIM = 5,
    MHA_D = MHA_E / MHA_H,
    MHA_DISTANCES = 5,
    MHA_BLOCK = 2, /* rows and columns of a block */
    MHA_C = 6,     /* rows of each sequence of the cache */
    MHA_PAGE = 2,  /* of one page */
    MHA_PAGES = MHA_N * MHA_C / MHA_PAGE,
    MHA_POSITIONS = 9 /* of tables of cosines */
};

/* Whether there is a cache, and where its rows lie. */
typedef enum mha_cache_kind {
    MHA_NO_CACHE,
    MHA_CACHE_OWN,
    MHA_CACHE_PAGES,
    MHA_CACHE_FLAT_PAGES,
    MHA_CACHE_STARTS
} mha_cache_kind;

/* The views by number; the first four are the call's arguments, the others its options. */
enum mha_tensor {
    MHA_QUERY,  /* (N, L, E) */
    MHA_KEY,    /* (N, S, kdim) */
    MHA_VALUE,  /* (N, S, vdim) */
    MHA_OUTPUT, /* (N, L, E) */
    MHA_ARGUMENTS,
    MHA_KEY_PADDING_MASK = MHA_ARGUMENTS, /* (N, S), bool */
    MHA_FLOAT_PADDING_MASK,               /* (N, S), float32 */
    MHA_ATTENTION_MASK,                   /* attention.mask (L, S), float32; all from here: options
                                             of the attention */
    MHA_BOOL_MASK,                        /* attention.mask (L, S), bool */
    MHA_ATTENTION_BIAS,                   /* attention.bias (L, S), float32 */
    MHA_AVERAGE_WEIGHTS,                  /* attention.weights (N, L, S) */
    MHA_ATTENTION_WEIGHTS,                /* attention.weights (N, H, L, S) */
    MHA_ATTENTION_SCORES,                 /* attention.scores (N, H, L, S) */
    MHA_ATTENTION_LSE,                    /* attention.lse (N, H, L) */
    MHA_ATTENTION_SINKS,                  /* attention.sinks (H) */
    MHA_ATTENTION_SLOPES,                 /* attention.alibi_slopes (H) */
    MHA_ATTENTION_LENGTHS,                /* attention.key_lengths (N) */
    MHA_ATTENTION_OFFSET,                 /* attention.query_offset (N) */
    MHA_ATTENTION_MASK_START,             /* attention.mask_start (N) */
    MHA_ATTENTION_POSITION_BIAS,          /* attention.position_bias (H, distances) */
    MHA_ATTENTION_BLOCK_MASK,             /* attention.block_mask (1, blocks of S) */
    MHA_QUERY_STARTS,                     /* attention.query_starts (N + 1), rows of L */
    MHA_KV_KEY,                           /* cache.key (N, H, C, D), or as its kind has it; those
                                             from here on: the cache */
    MHA_KV_VALUE,
    MHA_KV_LENGTHS,     /* (N): S */
    MHA_KV_PAGE_TABLE,  /* (N, C / PAGE) or (PAGES) */
    MHA_KV_PAGE_STARTS, /* (N + 1) */
    MHA_KV_STARTS,      /* (N + 1) */
    MHA_KV_KEY_SCALE,   /* one number */
    MHA_KV_KEY_ZERO,
    MHA_ROPE_FREQUENCIES, /* rope.frequencies (D / 2); from here on: the rotation */
    MHA_ROPE_COS,         /* (POSITIONS, D / 2) */
    MHA_ROPE_SIN,
    MHA_ROPE_POSITIONS, /* (N, 1): zeroes */
    MHA_ROPE_LENGTHS,   /* (N): S */
    MHA_OUT_WEIGHT,     /* the bound parameter (E, E) */
    MHA_TENSORS
};

/* All memory of the call in one block, so that two of them can be compared. */
typedef struct mha_memory {
    float query[MHA_N * MHA_L * MHA_E];
    float key[MHA_N * MHA_S * MHA_KDIM];
    float value[MHA_N * MHA_S * MHA_VDIM];
    float output[MHA_N * MHA_L * MHA_E];
    float float_padding_mask[MHA_N * MHA_S];
    float attn_mask[MHA_L * MHA_S];
    float bias[MHA_L * MHA_S];
    unsigned char key_padding_mask[MHA_N * MHA_S];
    unsigned char bool_mask[MHA_L * MHA_S];
    int64_t key_lengths[MHA_N];
    int64_t query_offset[MHA_N];
    int64_t mask_start[MHA_N];
    float position_bias[MHA_H * MHA_DISTANCES];
    unsigned char block_mask[MHA_S];
    int64_t query_starts[MHA_N + 1];
    float sinks[MHA_H];
    float alibi_slopes[MHA_H];
    float lse[MHA_N * MHA_H * MHA_L];
    float weights[MHA_N * MHA_H * MHA_L * MHA_S];
    float scores[MHA_N * MHA_H * MHA_L * MHA_S];
    float cached[2][MHA_N * MHA_H * MHA_C * MHA_D];
    int64_t lengths[MHA_N];
    int64_t page_table[MHA_PAGES];
    int64_t page_starts[MHA_N + 1];
    int64_t starts[MHA_N + 1];
    float numbers[2]; /* a scale, a zero */
    float frequencies[MHA_D / 2];
    float tables[2][MHA_POSITIONS * MHA_D / 2];
    int64_t positions[MHA_N];
    int64_t rope_lengths[MHA_N];
} mha_memory;

typedef struct mha_parameters {
    float q_weight[MHA_E * MHA_E];
    float k_weight[MHA_E * MHA_KDIM];
    float v_weight[MHA_E * MHA_VDIM];
    float in_bias[3 * MHA_E];
    float out_weight[MHA_E * MHA_E];
    float out_bias[MHA_E];
} mha_parameters;

typedef struct mha_layer {
    mha_parameters parameters;
    attn_mha *layer;
} mha_layer;

typedef struct mha_fixture {
    mha_memory memory;
    attn_context *context;
    const attn_mha *layer;
    const mha_parameters *parameters;
    attn_tensor views[MHA_TENSORS];
    const attn_tensor *arguments[MHA_ARGUMENTS];
    attn_sdpa_params attention;
    attn_kv cache;
    attn_rope_params rope;
    attn_mha_params options;
    const attn_mha_params *params; /* &options; a test may point it elsewhere */
    void *workspace;
    size_t workspace_bytes;
} mha_fixture;

/* The config of the layer. */
attn_mha_config mha_fixture_config(void);

/* Fills the parameters' values. */
void mha_parameters_fill(mha_parameters *parameters);

/* A view of one of the values by the parameter's name. */
attn_tensor mha_parameters_view(mha_parameters *parameters, const char *name);

/* The names of the layer's parameters; NULL after the last. */
extern const char *const mha_parameter_names[];

/* Makes the layer and gives it its parameters. Ends the test if the library refuses. */
void mha_layer_create(mha_layer *layer, attn_context *context);

/* Makes the valid call, without options. Outputs hold the canary. */
void mha_fixture_prepare(mha_fixture *fixture, attn_context *context, mha_layer *layer);

/* Puts a cache into the options, without rows as yet: with it the values are the same. */
void mha_fixture_cache(mha_fixture *fixture, mha_cache_kind kind);

/* Makes query, key, value and output rows of all sequences, (N * L, features), by query_starts. It
 * has no values to be compared with. */
void mha_fixture_ragged(mha_fixture *fixture);

/* Puts an optional view into the options; a mask's kind is the caller's to set. */
void mha_fixture_link(mha_fixture *fixture, int tensor);

/* Takes it out again. */
void mha_fixture_unlink(mha_fixture *fixture, int tensor);

attn_status mha_fixture_run(mha_fixture *fixture);
attn_status mha_fixture_workspace_bytes(mha_fixture *fixture, size_t *bytes);
attn_status mha_fixture_explain(mha_fixture *fixture, attn_mha_report *report);
attn_status mha_fixture_describe_outputs(mha_fixture *fixture, attn_mha_outputs *outputs);

/* Fails the test unless output is the layer's for the prepared query, key and value without
 * options. */
void mha_fixture_assert_values(const mha_fixture *fixture);

#endif
