/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 05_kdim_vdim.c: keys and values with widths of their own, as in PyTorch:
 *
 *     layer = torch.nn.MultiheadAttention(embed_dim=8, num_heads=4, kdim=4, vdim=3,
 * batch_first=True) output, weights = layer(query, key, value)    # (10, 9, 8), (10, 7, 4), (10, 7,
 * 3)
 */
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

enum { N = 10, L = 9, S = 7, EMBED_DIM = 8, KDIM = 4, VDIM = 3, HEADS = 4 };

static float query_data[N][L][EMBED_DIM], key_data[N][S][KDIM], value_data[N][S][VDIM];
static float output_data[N][L][EMBED_DIM], weights_data[N][L][S];

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

static void expect_rows_that_sum_to_one(void) {
    for (int n = 0; n < N; n++) {
        for (int i = 0; i < L; i++) {
            float sum = 0;
            for (int j = 0; j < S; j++) {
                sum += weights_data[n][i][j];
            }
            if (!(sum > 0.99999f && sum < 1.00001f)) {
                fprintf(stderr, "weights of batch %d, query %d: expected the sum 1, got %g\n", n, i,
                        (double)sum);
                exit(EXIT_FAILURE);
            }
        }
    }
}

int main(void) {
    fill(&query_data[0][0][0], sizeof query_data / sizeof(float));
    fill(&key_data[0][0][0], sizeof key_data / sizeof(float));
    fill(&value_data[0][0][0], sizeof value_data / sizeof(float));

    attn_tensor query, key, value, output, weights;
    check(
        attn_tensor_init(&query, query_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, L, EMBED_DIM}));
    check(attn_tensor_init(&key, key_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, S, KDIM}));
    check(attn_tensor_init(&value, value_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, S, VDIM}));
    check(attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 3,
                           (int64_t[]){N, L, EMBED_DIM}));
    check(attn_tensor_init(&weights, weights_data, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){N, L, S}));

    attn_mha_config config = {
        .struct_size = sizeof config,
        .embed_dim = EMBED_DIM,
        .num_heads = HEADS,
        .kdim = KDIM,
        .vdim = VDIM,
        .batch_first = 1,
    };
    attn_mha *layer;
    check(attn_mha_create(NULL, &config, &layer));
    attn_mha_init_params init = {.struct_size = sizeof init, .seed = 5};
    check(attn_mha_init_parameters(NULL, layer, &init));

    /* (N, L, S): the mean over the heads; (N, H, L, S) would be one matrix per head. */
    attn_sdpa_params attention = {.struct_size = sizeof attention, .weights = &weights};
    attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    check(attn_mha_forward(NULL, layer, &query, &key, &value, &params, &output, NULL, 0));
    printf("query (%d, %d, %d), key (%d, %d, %d), value (%d, %d, %d) -> output (%d, %d, %d), "
           "weights (%d, %d, %d)\n",
           N, L, EMBED_DIM, N, S, KDIM, N, S, VDIM, N, L, EMBED_DIM, N, L, S);
    puts("The weights are the mean over the heads; each row sums to 1.");
    expect_rows_that_sum_to_one();

    /* What a wrong shape gets: a status, and a line that says what was expected. */
    attn_tensor narrow_key;
    check(attn_tensor_slice(&key, -1, 0, KDIM - 1, 1, &narrow_key));
    if (attn_mha_forward(NULL, layer, &query, &narrow_key, &value, NULL, &output, NULL, 0) !=
        ATTN_ERROR_SHAPE) {
        fprintf(stderr, "a key that is too narrow: expected ATTN_ERROR_SHAPE\n");
        return EXIT_FAILURE;
    }
    printf("With a key that is too narrow: \"%s\"\n", attn_last_error());
    attn_mha_destroy(layer);
    return EXIT_SUCCESS;
}
