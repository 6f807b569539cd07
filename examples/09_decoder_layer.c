/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 09_decoder_layer.c: the attention of a decoder's layer as models have it today, projections,
 * norms of queries and keys, rotary positions and a cache in 16 bits, in one call for a prompt and
 * one for each token after it. The same layer without a cache, over all tokens at once, is what the
 * steps are compared with.
 */
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

enum {
    BATCH = 2,
    EMBED_DIM = 64,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 16,
    PROMPT = 5,
    TOKENS = 9, /* of each sequence, the prompt's included */
    ROOM = 12   /* rows of each sequence in the cache */
};

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

static attn_tensor view(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor tensor;
    check(attn_tensor_init(&tensor, data, dtype, rank, shape));
    return tensor;
}

static float larger_of(float largest, float number) {
    const float magnitude = number < 0 ? -number : number;
    return magnitude > largest ? magnitude : largest;
}

/* Rows [first, first + count) of every sequence. */
static attn_tensor rows_of(const attn_tensor *all, int64_t first, int64_t count) {
    attn_tensor rows;
    check(attn_tensor_slice(all, 1, first, count, 1, &rows));
    return rows;
}

/* A layer of grouped heads, each of which is normalised as Qwen 3's and Gemma 3's are; a model's
 * weights would be loaded by attn_mha_load_parameter. */
static attn_mha *make_layer(void) {
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = EMBED_DIM,
                                    .num_heads = HEADS,
                                    .num_kv_heads = KV_HEADS,
                                    .head_dim = HEAD_DIM,
                                    .no_bias = 1,
                                    .batch_first = 1,
                                    .parameter_dtype = ATTN_DTYPE_BFLOAT16,
                                    .qk_norm = ATTN_QK_NORM_HEAD,
                                    .qk_norm_epsilon = 1e-6};
    attn_mha *layer;
    check(attn_mha_create(NULL, &config, &layer));
    check(attn_mha_init_parameters(NULL, layer, NULL));
    return layer;
}

int main(void) {
    static float hidden[BATCH * TOKENS * EMBED_DIM], whole[BATCH * TOKENS * EMBED_DIM];
    static float steps[BATCH * TOKENS * EMBED_DIM];
    static uint16_t keys[BATCH * KV_HEADS * ROOM * HEAD_DIM];
    static uint16_t values[BATCH * KV_HEADS * ROOM * HEAD_DIM];
    int64_t lengths[BATCH] = {0, 0};
    for (int64_t i = 0; i < BATCH * TOKENS * EMBED_DIM; i++) {
        hidden[i] = (float)(i * 37 % 101) / 50 - 1;
    }
    const int64_t hidden_shape[] = {BATCH, TOKENS, EMBED_DIM};
    const int64_t cache_shape[] = {BATCH, KV_HEADS, ROOM, HEAD_DIM};
    const attn_tensor input = view(hidden, ATTN_DTYPE_FLOAT32, 3, hidden_shape);
    const attn_tensor expected = view(whole, ATTN_DTYPE_FLOAT32, 3, hidden_shape);
    const attn_tensor output = view(steps, ATTN_DTYPE_FLOAT32, 3, hidden_shape);
    const attn_tensor key = view(keys, ATTN_DTYPE_BFLOAT16, 4, cache_shape);
    const attn_tensor value = view(values, ATTN_DTYPE_BFLOAT16, 4, cache_shape);
    const attn_tensor rows_in_use = view(lengths, ATTN_DTYPE_INT64, 1, cache_shape);

    attn_mha *layer = make_layer();
    const attn_rope_params rope = {.struct_size = sizeof rope, .base = 500000};
    const attn_sdpa_params attention = {.struct_size = sizeof attention, .is_causal = 1};
    attn_mha_params params = {.struct_size = sizeof params, .attention = &attention, .rope = &rope};
    check(attn_mha_forward(NULL, layer, &input, &input, &input, &params, &expected, NULL, 0));

    const attn_kv cache = {
        .struct_size = sizeof cache, .key = &key, .value = &value, .lengths = &rows_in_use};
    params.cache = &cache;
    for (int64_t first = 0; first < TOKENS;) {
        const int64_t count = first == 0 ? PROMPT : 1;
        const attn_tensor new_rows = rows_of(&input, first, count);
        const attn_tensor to = rows_of(&output, first, count);
        for (int64_t b = 0; b < BATCH; b++) {
            lengths[b] += count; /* once a step, for all layers of a model */
        }
        check(
            attn_mha_forward(NULL, layer, &new_rows, &new_rows, &new_rows, &params, &to, NULL, 0));
        first += count;
    }
    attn_mha_destroy(layer);

    float furthest = 0, largest = 0;
    for (int64_t i = 0; i < BATCH * TOKENS * EMBED_DIM; i++) {
        furthest = larger_of(furthest, steps[i] - whole[i]);
        largest = larger_of(largest, whole[i]);
    }
    printf("%d tokens of %d sequences, a prompt and %d steps: off by %.2g, of %.2g\n", TOKENS,
           BATCH, TOKENS - PROMPT, (double)furthest, (double)largest);
    /* A stored number is off by 2^-9 of itself; scores of normalised rows by 2^-7 at most. */
    return furthest < largest / 50 ? EXIT_SUCCESS : EXIT_FAILURE;
}
