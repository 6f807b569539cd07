/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 01_sdpa.c: scaled dot-product attention, plain: two queries over three keys, and where each
 * output comes from.
 */
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

#define LN_3 1.09861229f

/* Every call of the library returns a status; the detail says in one line which argument was wrong.
 */
static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

static void expect(const char *what, double expected, double actual) {
    double error = actual > expected ? actual - expected : expected - actual;
    if (!(error < 1e-5)) {
        fprintf(stderr, "%s: expected %g, got %g\n", what, expected, actual);
        exit(EXIT_FAILURE);
    }
}

int main(void) {
    /* Four features, so the default scale is 1/sqrt(4) = 1/2. The first query's scores are then ln
     * 3, 0, 0; the second's 0, 0, 0. */
    float query_data[2][4] = {{2 * LN_3, 0, 0, 0}, {0, 0, 0, 0}};
    float key_data[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}};
    float value_data[3][2] = {{5, 0}, {0, 5}, {5, 5}};
    float output_data[2][2], weights_data[2][3], lse_data[2];

    /* A tensor is a view of your memory: nothing is owned or copied. Rank 2 is one head of one
     * batch. */
    attn_tensor query, key, value, output, weights, lse;
    check(attn_tensor_init(&query, query_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){2, 4}));
    check(attn_tensor_init(&key, key_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){3, 4}));
    check(attn_tensor_init(&value, value_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){3, 2}));
    check(attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){2, 2}));
    check(attn_tensor_init(&weights, weights_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){2, 3}));
    check(attn_tensor_init(&lse, lse_data, ATTN_DTYPE_FLOAT32, 1, (int64_t[]){2}));

    /* Context, params and workspace may all be NULL: the defaults. */
    check(attn_sdpa(NULL, &query, &key, &value, NULL, &output, NULL, 0));

    /* Options, outputs beside the main one included, are fields of a zeroed struct that begins with
     * its own size. */
    attn_sdpa_params params = {.struct_size = sizeof params, .weights = &weights, .lse = &lse};
    check(attn_sdpa(NULL, &query, &key, &value, &params, &output, NULL, 0));

    for (int i = 0; i < 2; i++) {
        printf("query %d: weights %.3f %.3f %.3f  output %.3f %.3f  log of the sum of exponentials "
               "%.3f\n",
               i, (double)weights_data[i][0], (double)weights_data[i][1],
               (double)weights_data[i][2], (double)output_data[i][0], (double)output_data[i][1],
               (double)lse_data[i]);
    }
    puts("Query 0 has the scores ln 3, 0, 0, so the weights 3/5, 1/5, 1/5; query 1 likes all keys "
         "alike and gets the values' mean.");

    expect("weight of key 0 for query 0", 3.0 / 5, (double)weights_data[0][0]);
    expect("weight of key 1 for query 0", 1.0 / 5, (double)weights_data[0][1]);
    expect("weight of key 2 for query 1", 1.0 / 3, (double)weights_data[1][2]);
    expect("output of query 0, feature 0", 3.0 / 5 * 5 + 1.0 / 5 * 5, (double)output_data[0][0]);
    expect("output of query 0, feature 1", 1.0 / 5 * 5 + 1.0 / 5 * 5, (double)output_data[0][1]);
    expect("output of query 1, feature 0", 10.0 / 3, (double)output_data[1][0]);
    expect("log of 5", 1.609437912, (double)lse_data[0]);
    return EXIT_SUCCESS;
}
