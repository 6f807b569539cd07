/* SPDX-License-Identifier: BSD-3-Clause
 *
 * large_calls.c: a softmax, a rotation, a normalisation, a merge, scores, gradients, attention by
 * both engines, also of ragged queries, and a layer.
 */
#include "large_calls.h"

#include <string.h>

enum { NUM_FLOATS = LARGE_ROWS * LARGE_COLS, HEAD_DIM = 8, EMBED_DIM = 64, NUM_HEADS = 2 };

static attn_tensor matrix(float *data, int64_t rows, int64_t cols) {
    const int64_t shape[] = {rows, cols};
    return refusal_view(data, ATTN_DTYPE_FLOAT32, 2, shape);
}

static attn_status run_softmax(attn_context *context, float *output) {
    static float values[NUM_FLOATS];
    refusal_numbers(values, NUM_FLOATS, 1);
    const attn_tensor from = matrix(values, LARGE_ROWS, LARGE_COLS);
    const attn_tensor to = matrix(output, LARGE_ROWS, LARGE_COLS);
    return attn_softmax(context, &from, NULL, &to, NULL, 0);
}

static attn_status run_rope(attn_context *context, float *output) {
    static float values[NUM_FLOATS];
    refusal_numbers(values, NUM_FLOATS, 8);
    const attn_tensor from = matrix(values, LARGE_ROWS, LARGE_COLS);
    const attn_tensor to = matrix(output, LARGE_ROWS, LARGE_COLS);
    return attn_rope(context, &from, NULL, &to);
}

static attn_status run_rms_norm(attn_context *context, float *output) {
    static float values[NUM_FLOATS];
    refusal_numbers(values, NUM_FLOATS, 9);
    const attn_tensor from = matrix(values, LARGE_ROWS, LARGE_COLS);
    const attn_tensor to = matrix(output, LARGE_ROWS, LARGE_COLS);
    return attn_rms_norm(context, &from, NULL, &to);
}

/* A matrix merged with itself. */
static attn_status run_merge(attn_context *context, float *output) {
    static float values[NUM_FLOATS];
    refusal_numbers(values, NUM_FLOATS, 8);
    const int64_t rows = LARGE_ROWS;
    const attn_tensor from = matrix(values, LARGE_ROWS, LARGE_COLS);
    const attn_tensor logits = refusal_view(values, ATTN_DTYPE_FLOAT32, 1, &rows);
    const attn_tensor to = matrix(output, LARGE_ROWS, LARGE_COLS);
    const attn_tensor outputs[] = {from, from}, lses[] = {logits, logits};
    return attn_sdpa_merge(context, 2, outputs, lses, NULL, &to, NULL);
}

static attn_status run_sdpa(attn_context *context, float *output) {
    static float inputs[3][LARGE_ROWS * HEAD_DIM];
    attn_tensor views[3];
    for (int i = 0; i < 3; ++i) {
        refusal_numbers(inputs[i], LARGE_ROWS * HEAD_DIM, i + 2);
        views[i] = matrix(inputs[i], LARGE_ROWS, HEAD_DIM);
    }
    const attn_tensor to = matrix(output, LARGE_ROWS, HEAD_DIM);
    return attn_sdpa(context, &views[0], &views[1], &views[2], NULL, &to, NULL, 0);
}

/* Gradients of query and key, one behind the other, with rows that are added in turns. */
static attn_status run_backward(attn_context *context, float *output) {
    static float inputs[4][LARGE_ROWS * HEAD_DIM], attended[LARGE_ROWS * HEAD_DIM],
        logits[LARGE_ROWS];
    const int64_t rows = LARGE_ROWS;
    attn_tensor views[4];
    for (int i = 0; i < 4; ++i) {
        refusal_numbers(inputs[i], LARGE_ROWS * HEAD_DIM, i + 2);
        views[i] = matrix(inputs[i], LARGE_ROWS, HEAD_DIM);
    }
    for (int64_t i = 0; i < LARGE_ROWS; ++i) {
        logits[i] = 7;
    }
    const attn_tensor result = matrix(attended, LARGE_ROWS, HEAD_DIM);
    const attn_tensor lse = refusal_view(logits, ATTN_DTYPE_FLOAT32, 1, &rows);
    const attn_tensor of_query = matrix(output, LARGE_ROWS, HEAD_DIM);
    const attn_tensor of_key = matrix(output + LARGE_ROWS * HEAD_DIM, LARGE_ROWS, HEAD_DIM);
    const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &lse};
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients, .output = &views[3], .query = &of_query, .key = &of_key};
    return attn_sdpa_backward(context, &views[0], &views[1], &views[2], &params, &result,
                              &gradients, NULL, 0);
}

/* Beside the output, or, without columns of value, alone. */
static attn_status run_scores(attn_context *context, float *output, int64_t value_dim) {
    enum { KEYS = 300 };
    static float inputs[3][LARGE_ROWS * HEAD_DIM];
    for (int i = 0; i < 3; ++i) {
        refusal_numbers(inputs[i], LARGE_ROWS * HEAD_DIM, i + 9);
    }
    const attn_tensor query = matrix(inputs[0], LARGE_ROWS, HEAD_DIM);
    const attn_tensor key = matrix(inputs[1], KEYS, HEAD_DIM);
    const attn_tensor value = matrix(inputs[2], KEYS, value_dim);
    const attn_tensor to = matrix(output, LARGE_ROWS, value_dim);
    const attn_tensor scores = matrix(output + LARGE_ROWS * HEAD_DIM, LARGE_ROWS, KEYS);
    const attn_sdpa_params params = {.struct_size = sizeof params, .scores = &scores};
    return attn_sdpa(context, &query, &key, &value, &params, &to, NULL, 0);
}

static attn_status run_scores_alone(attn_context *context, float *output) {
    return run_scores(context, output, 0);
}

static attn_status run_sdpa_with_scores(attn_context *context, float *output) {
    return run_scores(context, output, HEAD_DIM);
}

/* Rows of two sequences, the first of which is too little to share, so that it would be written
 * before threads are missed; keys in pages that stand in order. */
static attn_status run_ragged(attn_context *context, float *output) {
    enum { PAGE = 16, NUM_PAGES = LARGE_ROWS / PAGE, SEQUENCES = 2 };
    static float inputs[3][LARGE_ROWS * HEAD_DIM];
    static int32_t pages[SEQUENCES * NUM_PAGES];
    static const int32_t starts[] = {0, 2, LARGE_ROWS};
    const int64_t rows[] = {1, LARGE_ROWS, HEAD_DIM}, table[] = {SEQUENCES, NUM_PAGES};
    const int64_t page[] = {NUM_PAGES, 1, PAGE, HEAD_DIM}, ends[] = {SEQUENCES + 1};
    for (int i = 0; i < 3; ++i) {
        refusal_numbers(inputs[i], LARGE_ROWS * HEAD_DIM, i + 2);
    }
    for (int i = 0; i < SEQUENCES * NUM_PAGES; ++i) {
        pages[i] = i % NUM_PAGES;
    }
    const attn_tensor query = refusal_view(inputs[0], ATTN_DTYPE_FLOAT32, 3, rows);
    const attn_tensor key = refusal_view(inputs[1], ATTN_DTYPE_FLOAT32, 4, page);
    const attn_tensor value = refusal_view(inputs[2], ATTN_DTYPE_FLOAT32, 4, page);
    const attn_tensor to = refusal_view(output, ATTN_DTYPE_FLOAT32, 3, rows);
    const attn_tensor page_table = refusal_view(pages, ATTN_DTYPE_INT32, 2, table);
    const attn_tensor query_starts =
        refusal_view((void *)(uintptr_t)starts, ATTN_DTYPE_INT32, 1, ends);
    const attn_kv kv = {
        .struct_size = sizeof kv, .key = &key, .value = &value, .page_table = &page_table};
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .kv = &kv, .query_starts = &query_starts};
    return attn_sdpa(context, &query, NULL, NULL, &params, &to, NULL, 0);
}

/* Its weights are bound, so that they are put in order on the way. */
static attn_status run_mha(attn_context *context, float *output) {
    static float in_weight[3 * EMBED_DIM * EMBED_DIM], out_weight[EMBED_DIM * EMBED_DIM];
    static float input[LARGE_ROWS * EMBED_DIM];
    refusal_numbers(in_weight, 3 * EMBED_DIM * EMBED_DIM, 5);
    refusal_numbers(out_weight, EMBED_DIM * EMBED_DIM, 6);
    refusal_numbers(input, LARGE_ROWS * EMBED_DIM, 7);
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = EMBED_DIM, .num_heads = NUM_HEADS, .no_bias = 1};
    const attn_tensor in = matrix(in_weight, 3 * EMBED_DIM, EMBED_DIM);
    const attn_tensor out = matrix(out_weight, EMBED_DIM, EMBED_DIM);
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    refusal_assert_ok("attn_mha_bind_parameter",
                      attn_mha_bind_parameter(layer, "in_proj_weight", &in));
    refusal_assert_ok("attn_mha_bind_parameter",
                      attn_mha_bind_parameter(layer, "out_proj.weight", &out));
    const attn_tensor from = matrix(input, LARGE_ROWS, EMBED_DIM);
    const attn_tensor to = matrix(output, LARGE_ROWS, EMBED_DIM);
    const attn_status status =
        attn_mha_forward(context, layer, &from, &from, &from, NULL, &to, NULL, 0);
    attn_mha_destroy(layer);
    return status;
}

/* A few rows that are stored behind many in a cache, which lies behind the output: only the
 * attention is large enough for threads, and comes when the rows are stored. */
static attn_status run_mha_with_cache(attn_context *context, float *output) {
    enum { ROWS = 4, ROOM = 8192, FEATURES = 8 };
    static float weight[3 * FEATURES * FEATURES], input[ROWS * FEATURES];
    static int64_t length = ROOM;
    refusal_numbers(weight, 3 * FEATURES * FEATURES, 5);
    refusal_numbers(input, ROWS * FEATURES, 7);
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = FEATURES, .num_heads = 1, .no_bias = 1};
    const attn_tensor in = matrix(weight, 3 * FEATURES, FEATURES);
    const attn_tensor out = matrix(weight, FEATURES, FEATURES);
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    refusal_assert_ok("attn_mha_bind_parameter",
                      attn_mha_bind_parameter(layer, "in_proj_weight", &in));
    refusal_assert_ok("attn_mha_bind_parameter",
                      attn_mha_bind_parameter(layer, "out_proj.weight", &out));
    const int64_t room[] = {1, ROOM, FEATURES};
    const attn_tensor from = matrix(input, ROWS, FEATURES);
    const attn_tensor to = matrix(output, ROWS, FEATURES);
    const attn_tensor key = refusal_view(output + ROWS * FEATURES, ATTN_DTYPE_FLOAT32, 3, room);
    const attn_tensor value =
        refusal_view(output + (ROWS + ROOM) * FEATURES, ATTN_DTYPE_FLOAT32, 3, room);
    const attn_tensor lengths = refusal_view(&length, ATTN_DTYPE_INT64, 0, room);
    const attn_kv cache = {
        .struct_size = sizeof cache, .key = &key, .value = &value, .lengths = &lengths};
    const attn_mha_params params = {.struct_size = sizeof params, .cache = &cache};
    const attn_status status =
        attn_mha_forward(context, layer, &from, &from, &from, &params, &to, NULL, 0);
    attn_mha_destroy(layer);
    return status;
}

const large_call large_calls[] = {
    {"softmax", ATTN_ENGINE_AUTO, run_softmax, 1, true},
    {"rope", ATTN_ENGINE_AUTO, run_rope, 1, true},
    {"rms_norm", ATTN_ENGINE_AUTO, run_rms_norm, 1, true},
    {"merge", ATTN_ENGINE_AUTO, run_merge, 1, true},
    {"sdpa_fused", ATTN_ENGINE_FUSED, run_sdpa, 1, true},
    {"sdpa_blas", ATTN_ENGINE_BLAS, run_sdpa, 2, false},
    {"sdpa_backward", ATTN_ENGINE_AUTO, run_backward, 2, false},
    {"scores", ATTN_ENGINE_AUTO, run_scores_alone, 1, true},
    {"sdpa_fused_with_scores", ATTN_ENGINE_FUSED, run_sdpa_with_scores, 2, false},
    {"sdpa_blas_with_scores", ATTN_ENGINE_BLAS, run_sdpa_with_scores, 2, false},
    {"ragged_fused", ATTN_ENGINE_FUSED, run_ragged, 1, false},
    {"ragged_blas", ATTN_ENGINE_BLAS, run_ragged, 2, false},
    {"mha_fused", ATTN_ENGINE_FUSED, run_mha, 5, false},
    {"mha_blas", ATTN_ENGINE_BLAS, run_mha, 5, false},
    {"mha_with_cache", ATTN_ENGINE_FUSED, run_mha_with_cache, 1, false},
};
const size_t num_large_calls = sizeof large_calls / sizeof large_calls[0];

void large_call_expect(const large_call *call, float *output) {
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = 1,
                                        .engine = call->engine,
                                        .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    refusal_fill(output, NUM_FLOATS * sizeof *output);
    refusal_assert_ok(call->name, call->run(context, output));
    attn_context_destroy(context);
}

void large_call_assert(const large_call *call, attn_context *context, const float *expected) {
    static float output[NUM_FLOATS];
    refusal_fill(output, sizeof output);
    refusal_assert_ok(call->name, call->run(context, output));
    assert_memory_equal(output, expected, sizeof output);
}
