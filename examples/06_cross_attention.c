/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 06_cross_attention.c: a decoder's two attentions.
 *
 *   over the encoder    its queries attend to the encoder's states, of which some sequences are
 * shorter than others over itself         one token at a time against the keys and values kept so
 * far, with query_offset and key_lengths; the rows are those of one causal pass over the whole
 * sequence
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

enum { N = 2, L = 3, S = 5, E = 8, H = 2, D = 4, STEPS = 6, CAPACITY = 16 };

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Numbers between -1 and 1 without a pattern; any would do. */
static void fill(float *data, size_t count) {
    static uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
}

static void expect(const char *what, float expected, float actual) {
    float difference = expected - actual;
    if (!(difference < 1e-5f && difference > -1e-5f)) {
        fprintf(stderr, "%s: expected %g, got %g\n", what, (double)expected, (double)actual);
        exit(EXIT_FAILURE);
    }
}

/* The second sentence of the batch has 3 encoder states; the rest is padding and may hold anything.
 */
static void attend_to_encoder(void) {
    float decoder_data[N][L][E], encoder_data[N][S][E], output_data[N][L][E], weights_data[N][L][S];
    unsigned char is_padding[N][S] = {{0, 0, 0, 0, 0}, {0, 0, 0, 1, 1}};
    fill(&decoder_data[0][0][0], sizeof decoder_data / sizeof(float));
    fill(&encoder_data[0][0][0], sizeof encoder_data / sizeof(float));
    encoder_data[1][4][0] = NAN;

    attn_tensor decoder, encoder, output, weights, padding_mask;
    check(attn_tensor_init(&decoder, decoder_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, L, E}));
    check(attn_tensor_init(&encoder, encoder_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, S, E}));
    check(attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, L, E}));
    check(attn_tensor_init(&weights, weights_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, L, S}));
    check(attn_tensor_init(&padding_mask, is_padding, ATTN_DTYPE_BOOL, 2, (int64_t[]){N, S}));

    attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = E, .num_heads = H, .batch_first = 1};
    attn_mha *layer;
    check(attn_mha_create(NULL, &config, &layer));
    attn_mha_init_params init = {.struct_size = sizeof init, .seed = 6};
    check(attn_mha_init_parameters(NULL, layer, &init));
    attn_sdpa_params attention = {.struct_size = sizeof attention, .weights = &weights};
    attn_mha_params params = {
        .struct_size = sizeof params,
        .key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE, /* true is padding, as in PyTorch */
        .key_padding_mask = &padding_mask,
        .attention = &attention,
    };
    check(attn_mha_forward(NULL, layer, &decoder, &encoder, &encoder, &params, &output, NULL, 0));
    attn_mha_destroy(layer);

    puts("Weights of the second sentence's decoder rows; the encoder's padding gets none, and its "
         "NaN goes nowhere:");
    for (int i = 0; i < L; i++) {
        float sum = 0;
        for (int j = 0; j < S; j++) {
            printf(" %.3f", (double)weights_data[1][i][j]);
            sum += weights_data[1][i][j];
        }
        puts("");
        expect("weight of padding", 0, weights_data[1][i][3] + weights_data[1][i][4]);
        expect("sum of a row", 1, sum);
        if (isnan(output_data[1][i][0])) {
            fprintf(stderr, "row %d: the padding's NaN reached the output\n", i);
            exit(EXIT_FAILURE);
        }
    }
}

/* A view (H, length, D) of a cache (H, capacity, D): `length` positions of every head from `start`.
 */
static attn_tensor heads_view(float *data, int64_t capacity, int64_t start, int64_t length) {
    attn_tensor view;
    check(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){H, capacity, D}));
    check(attn_tensor_slice(&view, 1, start, length, 1, &view));
    return view;
}

static void decode_step_by_step(void) {
    static float query_data[H][STEPS][D], key_cache[H][CAPACITY][D], value_cache[H][CAPACITY][D];
    static float whole[H][STEPS][D], stepwise[H][STEPS][D];
    fill(&query_data[0][0][0], sizeof query_data / sizeof(float));
    fill(&key_cache[0][0][0], sizeof key_cache / sizeof(float));
    fill(&value_cache[0][0][0], sizeof value_cache / sizeof(float));

    attn_tensor query = heads_view(&query_data[0][0][0], STEPS, 0, STEPS),
                output = heads_view(&whole[0][0][0], STEPS, 0, STEPS);
    attn_tensor key = heads_view(&key_cache[0][0][0], CAPACITY, 0, STEPS);
    attn_tensor value = heads_view(&value_cache[0][0][0], CAPACITY, 0, STEPS);
    attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
    check(attn_sdpa(NULL, &query, &key, &value, &params, &output, NULL, 0));

    /* The step's query is row 0 of its call but stands at position `step`; the cache is given
     * whole, with the length filled so far. Both numbers are tensors (rank 0: one for the whole
     * batch) so that each sequence of a batch may have its own. */
    int64_t step, length;
    attn_tensor offset_view, length_view;
    check(attn_tensor_init(&offset_view, &step, ATTN_DTYPE_INT64, 0, NULL));
    check(attn_tensor_init(&length_view, &length, ATTN_DTYPE_INT64, 0, NULL));
    params.query_offset = &offset_view;
    params.key_lengths = &length_view;
    key = heads_view(&key_cache[0][0][0], CAPACITY, 0, CAPACITY);
    value = heads_view(&value_cache[0][0][0], CAPACITY, 0, CAPACITY);
    for (step = 0; step < STEPS; step++) {
        length = step + 1;
        query = heads_view(&query_data[0][0][0], STEPS, step, 1);
        output = heads_view(&stepwise[0][0][0], STEPS, step, 1);
        check(attn_sdpa(NULL, &query, &key, &value, &params, &output, NULL, 0));
    }
    for (int i = 0; i < H * STEPS * D; i++) {
        expect("row of the stepwise decoding", (&whole[0][0][0])[i], (&stepwise[0][0][0])[i]);
    }
    printf("%d tokens decoded one at a time give the rows of one causal pass.\n", STEPS);
}

int main(void) {
    attend_to_encoder();
    decode_step_by_step();
    return EXIT_SUCCESS;
}
