/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_case.h: a layer with a cache and the steps of a decoder through it, beside the same
 * steps as calls of attn_rms_norm, attn_rope, attn_kv_append and attn_sdpa.
 *
 * Inputs, weights and biases are multiples of 1/4 of a few bits, so that projections are exact in
 * any order; the output projection is the identity. So a layer's results are the attention's.
 */
#ifndef ATTENTION_TESTS_MHA_CACHE_CASE_H
#define ATTENTION_TESTS_MHA_CACHE_CASE_H

#include <attention/attention.h>

#include "covering_array.h"
#include "support/random_tensor.h"

enum cache_factor {
    CACHE_ENGINE,
    CACHE_PARAMETERS,
    CACHE_PLACE,
    CACHE_STORAGE,
    CACHE_HEADS,
    CACHE_FEATURES,
    CACHE_FORM,
    CACHE_ROPE,
    CACHE_NORM,
    CACHE_EXTRA,
    CACHE_PADDING,
    CACHE_OPTIONS,
    CACHE_OUTPUTS,
    CACHE_BEGINNING,
    CACHE_WORKSPACE,
    CACHE_THREADS,
    CACHE_FACTORS
};

/* Engine and type of the layer; the last two are the BLAS engine by native products. */
enum cache_engine {
    CACHE_FUSED_FLOAT32,
    CACHE_FUSED_BFLOAT16,
    CACHE_FUSED_FLOAT16,
    CACHE_NATIVE_FLOAT32,
    CACHE_NATIVE_FLOAT64
};
enum cache_place { PLACE_OWN, PLACE_STARTS, PLACE_PAGES, PLACE_FLAT_PAGES };
enum cache_storage {
    STORED_AS_COMPUTED,
    STORED_BFLOAT16,
    STORED_FLOAT16,
    STORED_INT8,
    STORED_UINT8,
    STORED_INT4,
    STORED_Q8_0
};
/* The last is no level of the factor: test_mha_ragged.c puts it in the place of all others. */
enum cache_form { FORM_BATCH_FIRST, FORM_SEQUENCE_FIRST, FORM_UNBATCHED, FORM_RAGGED };
enum cache_rope {
    ROPE_NONE,
    ROPE_BY_CACHE,
    ROPE_PART,
    ROPE_FREQUENCIES,
    ROPE_TABLES,
    ROPE_POSITIONS
};
enum cache_options { OPTIONS_NONE, OPTIONS_CAUSAL, OPTIONS_WINDOW, OPTIONS_MASK, OPTIONS_OFFSET };
enum cache_outputs { OUTPUTS_NONE, OUTPUTS_ALL };
enum cache_workspace { WORKSPACE_OF_LIBRARY, WORKSPACE_EXACT };

enum {
    CACHE_MOST_BATCH = 3,
    CACHE_BATCH = 2, /* but for ragged rows */
    CACHE_ROOM = 24, /* rows of each sequence */
    CACHE_PAGE = 4,
    CACHE_MOST_NEW = 7,
    NUM_CACHE_THREADS = 2
};

/* The rows that a step brings, of query and of key. */
typedef struct cache_step {
    int64_t queries, keys;
    int only_reads; /* key and value are NULL */
} cache_step;

enum { NUM_CACHE_STEPS = 5 };
extern const cache_step cache_steps[NUM_CACHE_STEPS];

/* One cache. */
typedef struct cache_memory {
    attn_tensor *key, *value, *scale[2], *zero[2];
    attn_kv kv;
} cache_memory;

typedef struct mha_cache_case {
    const factor_case *chosen;
    random_state random;
    tensor_pool pool, step_pool;
    attn_mha_config config;
    attn_mha *layer;
    int32_t dtype, score_dtype;
    int64_t batch, heads, kv_heads, head_dim, value_dim;
    attn_tensor *weight[3], *bias[3], *norm[2], *extra[2]; /* extra: bias_k, bias_v */
    attn_tensor *lengths, *page_table, *places, *frequencies, *tables[2], *slopes;
    cache_memory by_layer, by_calls;
    cache_step step;
    char step_name[64]; /* for messages */

    /* of the step at hand */
    attn_tensor *query, *key, *value, *output;
    attn_tensor *padding, *mask, *offset, *positions;
    attn_tensor *lse, *weights, *scores;
    attn_rope_params rope;
    attn_sdpa_params attention;
    attn_mha_params params;
} mha_cache_case;

factor_set mha_cache_factor_set(void);
int cache_level(const mha_cache_case *built, enum cache_factor which);

/* `built` must stay where it is. Caches hold the rows of the beginning. */
void mha_cache_case_build(mha_cache_case *built, attn_context *context, const factor_case *chosen,
                          uint64_t seed);
void mha_cache_case_destroy(mha_cache_case *built);

/* Options and rotation as the settings have them, without the tensors of a step. */
attn_sdpa_params mha_cache_options(const mha_cache_case *built);
attn_rope_params mha_cache_rope(const mha_cache_case *built);

/* The next call of the layer, with its tensors in step_pool; lengths count its rows. */
void mha_cache_step_build(mha_cache_case *built, cache_step step);
void mha_cache_step_destroy(mha_cache_case *built);

/* The index of an element of a sequence's key or value in the tensor of all. */
void mha_cache_index(const mha_cache_case *built, int64_t batch, int64_t head, int64_t row,
                     int64_t col, int64_t index[4]);

/* An element (n, row, col) of query, key, value or output in the case's form. */
void mha_cache_input_index(const mha_cache_case *built, int64_t batch, int64_t row, int64_t col,
                           int64_t index[3]);

int64_t mha_cache_length(const mha_cache_case *built, int64_t batch);

#endif
