/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_calls.c: a step of a layer with a cache, call by call.
 */
#include "mha_cache_calls.h"

#include <string.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

static int is_batched(const mha_cache_case *built) {
    return cache_level(built, CACHE_FORM) != FORM_UNBATCHED;
}

attn_tensor mha_cache_heads(const mha_cache_case *built, const attn_tensor *rows) {
    attn_tensor view = *rows;
    view.shape[1] = rows->shape[2];
    view.shape[2] = rows->shape[1];
    view.strides[1] = rows->strides[2];
    view.strides[2] = rows->strides[1];
    if (!is_batched(built)) {
        view.rank = 3;
        memmove(view.shape, view.shape + 1, 3 * sizeof *view.shape);
        memmove(view.strides, view.strides + 1, 3 * sizeof *view.strides);
    }
    return view;
}

/* One element of input `which` (0: query, 1: key, 2: value), projected: exact. */
static double projected(const mha_cache_case *built, int which, const attn_tensor *input,
                        int64_t batch, int64_t row, int64_t output) {
    const int64_t at[] = {output};
    double sum = oracle_element(built->bias[which], at);
    for (int64_t c = 0; c < built->config.embed_dim; ++c) {
        const int64_t weight[] = {output, c};
        int64_t index[3];
        mha_cache_input_index(built, batch, row, c, index);
        sum += oracle_element(built->weight[which], weight) * oracle_element(input, index);
    }
    return sum;
}

static attn_tensor *project(mha_cache_case *built, int which, const attn_tensor *input,
                            int64_t rows) {
    const int64_t heads = which == 0 ? built->heads : built->kv_heads;
    const int64_t features = which == 2 ? built->value_dim : built->head_dim;
    const int64_t shape[] = {built->batch, rows, heads, features};
    attn_tensor *result =
        pool_output(&built->step_pool, built->score_dtype, 4, shape, LAYOUT_CONTIGUOUS);
    int64_t index[4] = {0};
    if (oracle_count(4, shape) == 0) {
        return result;
    }
    do {
        oracle_store(
            result, index,
            projected(built, which, input, index[0], index[1], index[2] * features + index[3]));
    } while (oracle_next_index(4, shape, index));
    return result;
}

static void normalize(const mha_cache_case *built, attn_context *context, int which,
                      const attn_tensor *rows) {
    const attn_rms_norm_params params = {.struct_size = sizeof params,
                                         .weight = built->norm[which],
                                         .epsilon = built->config.qk_norm_epsilon,
                                         .weight_offset = built->config.qk_norm_weight_offset};
    attn_tensor view = *rows;
    if (built->config.qk_norm == ATTN_QK_NORM_NONE) {
        return;
    }
    if (built->config.qk_norm == ATTN_QK_NORM_ALL_HEADS) {
        view.rank = 3;
        view.shape[2] = rows->shape[2] * rows->shape[3];
        view.strides[2] = 1;
    }
    assert_ok(attn_rms_norm(context, &view, &params, &view));
}

static void rotate(const mha_cache_case *built, attn_context *context, const attn_tensor *rows) {
    attn_rope_params rope = built->rope;
    const attn_tensor heads = mha_cache_heads(built, rows);
    if (built->params.rope == NULL) {
        return;
    }
    if (rope.positions == NULL) {
        rope.lengths = built->lengths;
    }
    assert_ok(attn_rope(context, &heads, &rope, &heads));
}

/* New rows that are padding are zeroes. */
static void clear_padding(const mha_cache_case *built, const attn_tensor *rows) {
    int64_t index[4] = {0};
    if (built->padding == NULL || oracle_count(4, rows->shape) == 0) {
        return;
    }
    do {
        const int64_t column = mha_cache_length(built, index[0]) - rows->shape[1] + index[1];
        const int64_t at[] = {index[0], column};
        if (oracle_element(built->padding, at + !is_batched(built)) != 0) {
            oracle_store(rows, index, 0);
        }
    } while (oracle_next_index(4, rows->shape, index));
}

void mha_cache_append(mha_cache_case *built, attn_context *context) {
    if (built->step.only_reads) {
        return;
    }
    const attn_tensor *key = project(built, 1, built->key, built->step.keys);
    const attn_tensor *value = project(built, 2, built->value, built->step.keys);
    normalize(built, context, 1, key);
    rotate(built, context, key);
    clear_padding(built, key);
    clear_padding(built, value);
    const attn_tensor key_heads = mha_cache_heads(built, key),
                      value_heads = mha_cache_heads(built, value);
    assert_ok(attn_kv_append(context, &built->by_calls.kv, &key_heads, &value_heads, NULL));
}

/* The padding mask as (N, 1, 1, S), or (1, 1, S). */
static attn_tensor padding_view(const mha_cache_case *built) {
    attn_tensor view = *built->padding;
    view.rank = 4 - !is_batched(built);
    view.shape[view.rank - 1] = CACHE_ROOM;
    view.strides[view.rank - 1] = 1;
    view.shape[view.rank - 2] = view.shape[view.rank - 3] = 1;
    return view;
}

/* A mask (N, 1, L, S) without N, as the case. */
static attn_tensor mask_view(const mha_cache_case *built) {
    attn_tensor view = *built->mask;
    if (!is_batched(built)) {
        view.rank = 3;
        memmove(view.shape, view.shape + 1, 3 * sizeof *view.shape);
        memmove(view.strides, view.strides + 1, 3 * sizeof *view.strides);
    }
    return view;
}

void mha_cache_attend(mha_cache_case *built, attn_context *context, const attn_tensor *query,
                      const attn_tensor *output, attn_tensor *lse, attn_tensor *weights,
                      attn_tensor *scores) {
    attn_sdpa_params params = built->attention;
    attn_tensor mask, padding;
    params.kv = &built->by_calls.kv;
    params.enable_gqa = 1;
    params.align_end = params.query_offset == NULL;
    params.lse = lse;
    params.weights = weights;
    params.scores = scores;
    if (built->mask != NULL) {
        mask = mask_view(built);
        params.mask = &mask;
    }
    if (built->padding != NULL) {
        /* Added before it hides, as in the layer. */
        params.bias = params.mask;
        padding = padding_view(built);
        params.mask = &padding;
        params.mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    }
    const attn_tensor query_heads = mha_cache_heads(built, query),
                      heads = mha_cache_heads(built, output);
    assert_ok(attn_sdpa(context, &query_heads, NULL, NULL, &params, &heads, NULL, 0));
}

attn_tensor *mha_cache_queries(mha_cache_case *built, attn_context *context) {
    attn_tensor *query = project(built, 0, built->query, built->step.queries);
    normalize(built, context, 0, query);
    rotate(built, context, query);
    return query;
}
