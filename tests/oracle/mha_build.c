/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_build.c: the tensors and options an attn_mha_forward case stands for.
 */
#include <stdlib.h>
#include <string.h>

#include "attention_options.h"
#include "mha_case.h"

typedef struct call_sizes {
    int64_t batch, rows, keys;
    int is_batched, batch_first;
    oracle_mha_sizes layer;
} call_sizes;

static int64_t dim_of_level(int level, int64_t embed_dim, int64_t other) {
    const int64_t dims[] = {0, embed_dim, other};
    return dims[level];
}

static void listed_sizes(int level, attn_mha_config *config) {
    /* embed_dim, num_heads, num_kv_heads, head_dim, value_head_dim */
    const int64_t sizes[][5] = {{12, 3, 0, 0, 0}, {8, 1, 0, 0, 0}, {16, 4, 2, 0, 0},
                                {10, 2, 1, 3, 0}, {6, 2, 0, 6, 6}, {6, 3, 3, 4, 7},
                                {1, 1, 0, 0, 0},  {64, 4, 0, 0, 0}};
    config->embed_dim = sizes[level][0];
    config->num_heads = sizes[level][1];
    config->num_kv_heads = sizes[level][2];
    config->head_dim = sizes[level][3];
    config->value_head_dim = sizes[level][4];
}

/* `widest` limits every width but that of all heads together. */
static void drawn_sizes(int64_t widest, random_state *random, attn_mha_config *config) {
    const int64_t groups = random_between(random, 1, 3),
                  kv_heads = random_between(random, 1, widest < 40 ? 2 : 4);
    config->num_heads = groups * kv_heads;
    config->num_kv_heads = groups == 1 && random_between(random, 0, 1) ? 0 : kv_heads;
    config->head_dim = random_between(random, 0, 1) * random_between(random, 1, widest / 2);
    config->value_head_dim = random_between(random, 0, 1) * random_between(random, 1, widest / 2);
    config->embed_dim = config->head_dim != 0
                            ? random_between(random, 1, widest)
                            : config->num_heads * random_between(random, 1, widest / 5);
}

static int64_t widest_of(int free_lengths, random_state *random) {
    return free_lengths == FREE_TINY && random_between(random, 0, 31) != 0 ? 10 : 40;
}

static void build_config(const factor_case *chosen, int free_lengths, random_state *random,
                         attn_mha_config *config) {
    *config = (attn_mha_config){.struct_size = sizeof *config};
    const int64_t widest = widest_of(free_lengths, random);
    if (free_lengths) {
        drawn_sizes(widest, random, config);
    } else {
        listed_sizes(chosen->level[MHA_SIZES], config);
    }
    config->qdim = dim_of_level(chosen->level[MHA_QDIM], config->embed_dim,
                                free_lengths ? random_between(random, 1, widest) : 5);
    config->kdim = dim_of_level(chosen->level[MHA_KDIM], config->embed_dim,
                                free_lengths ? random_between(random, 1, widest) : 7);
    config->vdim = dim_of_level(chosen->level[MHA_VDIM], config->embed_dim,
                                free_lengths ? random_between(random, 1, widest) : 9);
    /* 0 means float32 too. */
    config->dtype = dtype_of_case(chosen) *
                    (dtype_of_case(chosen) != ATTN_DTYPE_FLOAT32 || random_between(random, 0, 1));
    config->parameter_dtype = mha_parameter_dtype(chosen->level[MHA_PARAMETER_TYPE], 0);
    config->no_bias = chosen->level[MHA_NO_BIAS];
    config->add_bias_kv = chosen->level[MHA_BIAS_KV];
    config->add_zero_attn = chosen->level[MHA_ZERO_ATTN];
    config->batch_first = chosen->level[MHA_FORM] == FORM_BATCH_FIRST;
    config->qk_norm = chosen->level[MHA_QK_NORM];
    if (config->qk_norm != ATTN_QK_NORM_NONE) {
        config->qk_norm_epsilon = random_between(random, 0, 1) ? 1e-3 : 0;
        config->qk_norm_weight_offset = (double)random_between(random, 0, 1);
    }
}

/* Of an odd number of features all but the last are rotated; of one none is. */
static void build_rope(const factor_case *chosen, const call_sizes *sizes, random_state *random,
                       mha_call *call) {
    const int level = chosen->level[MHA_ROPE];
    const int64_t head_dim = sizes->layer.head_dim, even = head_dim - head_dim % 2;
    if (level == MHA_ROPE_NONE || even == 0) {
        return;
    }
    call->rope = (attn_rope_params){.struct_size = sizeof call->rope,
                                    .rotary_dim = even < head_dim ? even : 0};
    if (level == MHA_ROPE_LENGTHS) {
        attn_tensor *lengths =
            pool_input(&call->pool, index_dtype_of_level(chosen->level[FACTOR_INDEX_DTYPE]),
                       sizes->is_batched, &sizes->batch, LAYOUT_CONTIGUOUS);
        random_fill_integers(lengths, random, 0, 300);
        call->rope.rotary_dim = even / 4 * 2 != 0 ? even / 4 * 2 : even;
        call->rope.base = 300;
        call->rope.interleaved = 1;
        call->rope.lengths = lengths;
    }
    call->params.rope = &call->rope;
}

/* (L, N, width), (N, L, width) or (L, width); returns the rank. */
static int32_t operand_axes(const call_sizes *sizes, int64_t length, int64_t width,
                            int64_t *shape) {
    if (!sizes->is_batched) {
        shape[0] = length;
        shape[1] = width;
        return 2;
    }
    shape[0] = sizes->batch_first ? sizes->batch : length;
    shape[1] = sizes->batch_first ? length : sizes->batch;
    shape[2] = width;
    return 3;
}

static attn_tensor *build_operand(const factor_case *chosen, int layout_factor,
                                  const call_sizes *sizes, int64_t length, int64_t width,
                                  random_state *random, tensor_pool *pool) {
    int64_t shape[3];
    const int32_t rank = operand_axes(sizes, length, width, shape);
    attn_tensor *tensor =
        pool_input(pool, dtype_of_case(chosen), rank, shape, chosen->level[layout_factor]);
    fill_operand(chosen, tensor, layout_factor == FACTOR_VALUE_LAYOUT, random);
    return tensor;
}

/* The axes of attention->mask; returns their number. */
static int32_t mask_axes(int form, const call_sizes *sizes, int64_t *shape) {
    const int64_t n = sizes->batch, h = sizes->layer.num_heads, rows = sizes->rows,
                  keys = sizes->keys;
    const int64_t forms[NUM_MASK_FORMS][4] = {
        {0, 0, 0, 0},       {0, 0, rows, keys}, {0, n * h, rows, keys}, {n, h, rows, keys},
        {1, h, rows, keys}, {n, 1, rows, keys}, {1, 1, rows, keys}};
    const int32_t ranks[NUM_MASK_FORMS] = {0, 2, 3, 4, 4, 4, 4};
    memcpy(shape, forms[form] + 4 - ranks[form], (size_t)ranks[form] * sizeof *shape);
    return ranks[form];
}

static void build_masks(const factor_case *chosen, const call_sizes *sizes, random_state *random,
                        mha_call *call) {
    const int form = chosen->level[MHA_MASK_FORM], padding = chosen->level[MHA_PADDING];
    const int32_t dtype = dtype_of_case(chosen);
    int64_t shape[ATTN_MAX_RANK];
    if (form != MASK_FORM_NONE) {
        const int32_t rank = mask_axes(form, sizes, shape);
        shape[rank - 1] = mask_columns(chosen, sizes->keys, random);
        call->attention.mask = build_mask(chosen->level[FACTOR_MASK], dtype, rank, shape,
                                          chosen->level[FACTOR_MASK_LAYOUT], &call->pool, random,
                                          &call->attention.mask_kind);
    }
    if (padding != MASK_LEVEL_NONE) {
        const int64_t padding_shape[] = {sizes->batch, sizes->keys};
        const int skipped = sizes->is_batched ? 0 : 1;
        call->params.key_padding_mask = build_mask(
            padding, dtype, 2 - skipped, padding_shape + skipped, chosen->level[MHA_PADDING_LAYOUT],
            &call->pool, random, &call->params.key_padding_mask_kind);
    }
}

static void build_options(const factor_case *chosen, const call_sizes *sizes, random_state *random,
                          mha_call *call) {
    option_shape shape = {.dtype = dtype_of_case(chosen),
                          .index_dtype = index_dtype_of_level(chosen->level[FACTOR_INDEX_DTYPE]),
                          .heads = sizes->layer.num_heads,
                          .rows = sizes->rows,
                          .keys = sizes->keys,
                          .columns = sizes->keys};
    if (sizes->is_batched) {
        shape.lead[shape.lead_rank++] = sizes->batch;
    }
    shape.lead[shape.lead_rank++] = sizes->layer.num_heads;
    build_attention_options(chosen, &shape, &call->pool, random, &call->attention);
    /* The layer's head counts decide, whatever enable_gqa says. */
    call->attention.enable_gqa = (int32_t)random_between(random, 0, 1);
    call->attention.is_causal = chosen->level[FACTOR_CAUSAL];
    build_masks(chosen, sizes, random, call);
    if (chosen->level[FACTOR_WEIGHTS] != WEIGHTS_NONE) {
        call->attention.weights = build_weights(&shape, result_dtype(chosen, MHA_WEIGHTS_TYPE),
                                                chosen->level[FACTOR_WEIGHTS] == WEIGHTS_AVERAGED,
                                                sizes->keys + sizes->layer.extra_keys,
                                                chosen->level[FACTOR_WEIGHTS_LAYOUT], &call->pool);
    }
    build_scores(chosen, &shape, sizes->keys + sizes->layer.extra_keys, &call->pool,
                 &call->attention);
    call->params.attention =
        chosen->level[MHA_ATTENTION] == ATTENTION_ABSENT ? NULL : &call->attention;
}

void mha_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, mha_call *call) {
    random_state random = random_seeded(seed);
    const int64_t batches[] = {1, 2, 3, 0};
    *call = (mha_call){.params = {.struct_size = sizeof call->params},
                       .attention = {.struct_size = sizeof call->attention}};
    build_config(chosen, free_lengths, &random, &call->config);
    const call_sizes sizes = {
        .batch = batches[chosen->level[MHA_BATCH]],
        .rows = length_of_level(chosen->level[FACTOR_ROWS], free_lengths, &random),
        .keys = length_of_level(chosen->level[FACTOR_KEYS], free_lengths, &random),
        .is_batched = chosen->level[MHA_FORM] != FORM_UNBATCHED,
        .batch_first = call->config.batch_first,
        .layer = oracle_mha_resolve(&call->config),
    };
    mha_case_parameters(chosen, &random, call);
    const oracle_mha_sizes *s = &sizes.layer;
    call->query = build_operand(chosen, FACTOR_QUERY_LAYOUT, &sizes, sizes.rows, s->qdim, &random,
                                &call->pool);
    call->key =
        build_operand(chosen, FACTOR_KEY_LAYOUT, &sizes, sizes.keys, s->kdim, &random, &call->pool);
    call->value = build_operand(chosen, FACTOR_VALUE_LAYOUT, &sizes, sizes.keys, s->vdim, &random,
                                &call->pool);
    build_rope(chosen, &sizes, &random, call);
    build_options(chosen, &sizes, &random, call);

    int64_t shape[3];
    const int32_t rank = operand_axes(&sizes, sizes.rows, s->embed_dim, shape);
    call->output = pool_output(&call->pool, result_dtype(chosen, MHA_OUTPUT_TYPE), rank, shape,
                               chosen->level[FACTOR_OUTPUT_LAYOUT]);
    call->given_params = chosen->level[FACTOR_OPTIONS] == OPTIONS_ABSENT ? NULL : &call->params;
    mha_case_poison(chosen, &random, call);
}

void mha_call_destroy(mha_call *call) {
    free(call->seen_key.data);
    free(call->seen_value.data);
    pool_destroy(&call->pool);
}
