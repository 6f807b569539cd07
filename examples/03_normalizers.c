/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 03_normalizers.c: what turns scores into weights: softmax, sigmoid, or nothing at all (linear
 * attention).
 *
 * One query, three keys; query . key is 4, 0, -4.
 */
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

enum { EMBED_DIM = 4 };

#define LN_3 1.0986122886681098

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

static void expect(const char *what, double expected, double actual) {
    double error = actual > expected ? actual - expected : expected - actual;
    if (!(error < 1e-6)) {
        fprintf(stderr, "%s: expected %.9g, got %.9g\n", what, expected, actual);
        exit(EXIT_FAILURE);
    }
}

/* Attends with a normalizer and a scale, prints the weights and compares them with what they should
 * be. */
static void attend(const char *title, int32_t normalizer, double scale, const double expected[3]) {
    float query_data[1][EMBED_DIM] = {{4, 0, 0, 0}};
    float key_data[3][EMBED_DIM] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {-1, 0, 0, 0}};
    float value_data[3][1] = {{1}, {10}, {100}};
    float output_data[1][1], weights_data[3];
    attn_tensor query, key, value, output, weights;
    check(attn_tensor_init(&query, query_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){1, EMBED_DIM}));
    check(attn_tensor_init(&key, key_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){3, EMBED_DIM}));
    check(attn_tensor_init(&value, value_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){3, 1}));
    check(attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){1, 1}));
    check(attn_tensor_init(&weights, weights_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){1, 3}));

    /* A scale other than 1/sqrt(features) needs its flag, so that 0 can be meant too. */
    attn_sdpa_params params = {
        .struct_size = sizeof params,
        .set = ATTN_SDPA_SET_SCALE,
        .scale = scale,
        .normalizer = normalizer,
        .weights = &weights,
    };
    check(attn_sdpa(NULL, &query, &key, &value, &params, &output, NULL, 0));

    printf("%s\n  weights %.4f %.4f %.4f  sum %.4f  output %.4f\n", title, (double)weights_data[0],
           (double)weights_data[1], (double)weights_data[2],
           (double)(weights_data[0] + weights_data[1] + weights_data[2]),
           (double)output_data[0][0]);
    for (int j = 0; j < 3; j++) {
        expect("weight", expected[j], (double)weights_data[j]);
    }
    double expected_output = expected[0] * 1 + expected[1] * 10 + expected[2] * 100;
    expect("output / 100", expected_output / 100, (double)output_data[0][0] / 100);
}

int main(void) {
    /* Scores ln 3, 0, -ln 3, whose exponentials are 3, 1, 1/3. */
    attend("Softmax: exp(score) over the row's sum; the weights compete and add up to 1.",
           ATTN_NORMALIZER_SOFTMAX, LN_3 / 4, (double[]){9.0 / 13, 3.0 / 13, 1.0 / 13});
    attend("Sigmoid: 1 / (1 + exp(-score)); every key is judged alone, between 0 and 1.",
           ATTN_NORMALIZER_SIGMOID, LN_3 / 4, (double[]){3.0 / 4, 1.0 / 2, 1.0 / 4});
    /* Scores 1, 0, -1. */
    attend(
        "None, scale 1/embed_dim: the scores are the weights, negative ones too: linear attention.",
        ATTN_NORMALIZER_LINEAR, 1.0 / EMBED_DIM, (double[]){1, 0, -1});
    return EXIT_SUCCESS;
}
