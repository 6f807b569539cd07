/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 02_masks.c: who sees whom. Causal, padding by lengths, an arbitrary bool mask, additive masks and
 * what fills them, a bias beside a mask.
 *
 * All queries are zero, so every visible key has the same score and a row's weights show which keys
 * it sees: 1/n for n of them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

enum { L = 3, S = 4, E = 2 };

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

static void expect_row(const float *weights, const double expected[S]) {
    for (int j = 0; j < S; j++) {
        double error = (double)weights[j] - expected[j];
        if (!(error < 1e-6 && error > -1e-6)) {
            fprintf(stderr, "weight of key %d: expected %g, got %g\n", j, expected[j],
                    (double)weights[j]);
            exit(EXIT_FAILURE);
        }
    }
}

/* Attends with the options and leaves the weights of `batch` sequences in `weights`. */
static void attend(int64_t batch, const attn_sdpa_params *options, float weights[][L][S]) {
    static float query_data[2][L][E], key_data[2][S][E], value_data[2][S][E], output_data[2][L][E];
    attn_tensor query, key, value, output, weights_view;
    check(attn_tensor_init(&query, query_data, ATTN_DTYPE_FLOAT32, 4, (int64_t[]){batch, 1, L, E}));
    check(attn_tensor_init(&key, key_data, ATTN_DTYPE_FLOAT32, 4, (int64_t[]){batch, 1, S, E}));
    check(attn_tensor_init(&value, value_data, ATTN_DTYPE_FLOAT32, 4, (int64_t[]){batch, 1, S, E}));
    check(
        attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 4, (int64_t[]){batch, 1, L, E}));
    check(attn_tensor_init(&weights_view, weights, ATTN_DTYPE_FLOAT32, 4,
                           (int64_t[]){batch, 1, L, S}));
    attn_sdpa_params params = *options;
    params.struct_size = sizeof params;
    params.weights = &weights_view;
    check(attn_sdpa(NULL, &query, &key, &value, &params, &output, NULL, 0));
}

static void print_weights(const char *title, float weights[L][S]) {
    puts(title);
    for (int i = 0; i < L; i++) {
        printf("  row %d:", i);
        for (int j = 0; j < S; j++) {
            printf(" %.2f", (double)weights[i][j]);
        }
        puts("");
    }
}

static void causal(void) {
    float weights[1][L][S];
    attn_sdpa_params params = {.is_causal = 1};
    attend(1, &params, weights);
    print_weights("Causal: row i sees the keys up to its own position.", weights[0]);
    expect_row(weights[0][0], (double[]){1, 0, 0, 0});
    expect_row(weights[0][1], (double[]){1. / 2, 1. / 2, 0, 0});
    expect_row(weights[0][2], (double[]){1. / 3, 1. / 3, 1. / 3, 0});
}

static void padding(void) {
    float weights[2][L][S];
    int64_t lengths[2] = {4, 2};
    attn_tensor key_lengths;
    check(attn_tensor_init(&key_lengths, lengths, ATTN_DTYPE_INT64, 1, (int64_t[]){2}));
    attn_sdpa_params params = {.key_lengths = &key_lengths};
    attend(2, &params, weights);
    print_weights("Padding: the second sequence of the batch has 2 keys; what lies behind them is "
                  "never read.",
                  weights[1]);
    expect_row(weights[0][0], (double[]){1. / 4, 1. / 4, 1. / 4, 1. / 4});
    expect_row(weights[1][0], (double[]){1. / 2, 1. / 2, 0, 0});
}

static void arbitrary(void) {
    float weights[1][L][S];
    unsigned char sees[L][S] = {{1, 0, 0, 1}, {0, 1, 1, 1}, {0, 0, 0, 0}};
    attn_tensor mask;
    check(attn_tensor_init(&mask, sees, ATTN_DTYPE_BOOL, 2, (int64_t[]){L, S}));
    attn_sdpa_params params = {.mask = &mask, .mask_kind = ATTN_MASK_BOOL_INCLUDE};
    attend(1, &params, weights);
    print_weights("A bool mask, true = takes part (ATTN_MASK_BOOL_EXCLUDE reads it the other way): "
                  "row 2 sees nothing and is 0.",
                  weights[0]);
    expect_row(weights[0][0], (double[]){1. / 2, 0, 0, 1. / 2});
    expect_row(weights[0][1], (double[]){0, 1. / 3, 1. / 3, 1. / 3});
    expect_row(weights[0][2], (double[]){0, 0, 0, 0});

    /* Options compose: a key is seen if every one of them allows it. */
    params.is_causal = 1;
    attend(1, &params, weights);
    print_weights("The same mask and causal together.", weights[0]);
    expect_row(weights[0][0], (double[]){1, 0, 0, 0});
    expect_row(weights[0][1], (double[]){0, 1, 0, 0});
}

/* Row 0 hides two keys, row 1 hides all, row 2 none. */
static void additive(float fill, float weights[L][S]) {
    float added[L][S] = {{0, fill, 0, fill}, {fill, fill, fill, fill}, {0, 0, 0, 0}};
    attn_tensor mask;
    check(attn_tensor_init(&mask, added, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){L, S}));
    attn_sdpa_params params = {.mask = &mask, .mask_kind = ATTN_MASK_ADDITIVE};
    attend(1, &params, (float(*)[L][S])weights);
}

/* A learned bias, as of T5 or Swin, is added beside whatever mask there is: here it makes each key
 * weigh twice as much as the one before it. */
static void bias(void) {
    float weights[1][L][S];
    const float doubling = 0.69314718F; /* ln 2 */
    float added[S] = {0, doubling, 2 * doubling, 3 * doubling};
    unsigned char is_padding[S] = {0, 0, 0, 1};
    attn_tensor bias_view, mask;
    check(attn_tensor_init(&bias_view, added, ATTN_DTYPE_FLOAT32, 1, (int64_t[]){S}));
    check(attn_tensor_init(&mask, is_padding, ATTN_DTYPE_BOOL, 1, (int64_t[]){S}));
    attn_sdpa_params params = {
        .mask = &mask, .mask_kind = ATTN_MASK_BOOL_EXCLUDE, .bias = &bias_view, .is_causal = 1};
    attend(1, &params, weights);
    print_weights("A bias beside a bool mask and causal: each key weighs twice as much as the one "
                  "before it, and the last is padding.",
                  weights[0]);
    expect_row(weights[0][0], (double[]){1, 0, 0, 0});
    expect_row(weights[0][1], (double[]){1. / 3, 2. / 3, 0, 0});
    expect_row(weights[0][2], (double[]){1. / 7, 2. / 7, 4. / 7, 0});
}

int main(void) {
    causal();
    padding();
    arbitrary();
    bias();

    float weights[L][S];
    additive(-INFINITY, weights);
    print_weights(
        "An additive mask filled with -inf hides as a bool mask does: row 1 sees nothing and is 0.",
        weights);
    expect_row(weights[0], (double[]){1. / 2, 0, 1. / 2, 0});
    expect_row(weights[1], (double[]){0, 0, 0, 0});

    additive(-1000.0f, weights);
    print_weights("Filled with -1000 it only lowers scores. Among others that makes 0, but row 1, "
                  "lowered everywhere, is as it was.",
                  weights);
    expect_row(weights[0], (double[]){1. / 2, 0, 1. / 2, 0});
    expect_row(weights[1], (double[]){1. / 4, 1. / 4, 1. / 4, 1. / 4});
    return EXIT_SUCCESS;
}
