/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 08_cascade.c: many sequences that begin alike, such as answers to one long prompt. The keys and
 * values of the shared prefix stand in memory once and are read once for all sequences; those of
 * each sequence's own suffix are attended apart, and the two results are merged.
 */
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>

enum {
    SEQUENCES = 6,
    HEADS = 4,
    PREFIX = 500, /* keys that all sequences share */
    SUFFIX = 12,  /* room for the keys of each sequence's own */
    FEATURES = 32
};

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

/* A view of `numbers`, which get values in [-1, 1) that look like chance. */
static attn_tensor random_tensor(float *numbers, int32_t rank, const int64_t *shape) {
    static unsigned seed = 1;
    attn_tensor tensor;
    int64_t count;
    check(attn_tensor_init(&tensor, numbers, ATTN_DTYPE_FLOAT32, rank, shape));
    check(attn_tensor_count(&tensor, &count));
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        numbers[i] = (float)(seed >> 8) / (1 << 23) - 1;
    }
    return tensor;
}

/* How many keys each sequence has behind the prefix. */
static const int64_t suffix_lengths[SEQUENCES] = {3, 12, 1, 0, 7, 5};

enum { MOST_KEYS = PREFIX + SUFFIX };

/* The keys or values of one sequence, (HEADS, PREFIX + its own, FEATURES), as they would stand in
 * memory without a cascade. */
static attn_tensor copied_together(float *together, const attn_tensor *prefix,
                                   const attn_tensor *suffix, int64_t sequence) {
    const int64_t length = PREFIX + suffix_lengths[sequence];
    const int64_t shape[] = {HEADS, length, FEATURES};
    attn_tensor tensor;
    check(attn_tensor_init(&tensor, together, ATTN_DTYPE_FLOAT32, 3, shape));
    for (int64_t head = 0; head < HEADS; head++) {
        for (int64_t key = 0; key < length; key++) {
            const int64_t row = key < PREFIX ? head * PREFIX + key
                                             : (sequence * HEADS + head) * SUFFIX + key - PREFIX;
            const float *from = (const float *)(key < PREFIX ? prefix : suffix)->data;
            for (int64_t e = 0; e < FEATURES; e++) {
                together[(head * length + key) * FEATURES + e] = from[row * FEATURES + e];
            }
        }
    }
    return tensor;
}

/* The largest difference of a sequence's row from attention over its keys in one piece. */
static double difference(const attn_tensor *query, const attn_tensor *keys,
                         const attn_tensor *values, const attn_tensor *output, int64_t sequence) {
    static float key_data[HEADS * MOST_KEYS * FEATURES], value_data[HEADS * MOST_KEYS * FEATURES];
    float expected_data[HEADS * FEATURES];
    attn_tensor one_query, cascaded, expected;
    check(attn_tensor_select(query, 0, sequence, &one_query));
    check(attn_tensor_select(output, 0, sequence, &cascaded));
    check(attn_tensor_init(&expected, expected_data, ATTN_DTYPE_FLOAT32, 3,
                           (int64_t[]){HEADS, 1, FEATURES}));
    attn_tensor key = copied_together(key_data, &keys[0], &keys[1], sequence);
    attn_tensor value = copied_together(value_data, &values[0], &values[1], sequence);
    check(attn_sdpa(NULL, &one_query, &key, &value, NULL, &expected, NULL, 0));
    double largest = 0;
    for (int i = 0; i < HEADS * FEATURES; i++) {
        const double error = (double)expected_data[i] - (double)((float *)cascaded.data)[i];
        largest = error > largest ? error : -error > largest ? -error : largest;
    }
    return largest;
}

int main(void) {
    /* One new query for each head of each sequence, and keys[0] and values[0] of the prefix, [1] of
     * the suffixes. */
    const int64_t rows[] = {SEQUENCES, HEADS, 1, FEATURES};
    const int64_t prefix[] = {HEADS, PREFIX, FEATURES};
    const int64_t suffixes[] = {SEQUENCES, HEADS, SUFFIX, FEATURES};
    static float query_data[SEQUENCES * HEADS * FEATURES];
    static float prefix_data[2][HEADS * PREFIX * FEATURES];
    static float suffix_data[2][SEQUENCES * HEADS * SUFFIX * FEATURES];
    static float output_data[2][SEQUENCES * HEADS * FEATURES], lse_data[2][SEQUENCES * HEADS];
    attn_tensor query = random_tensor(query_data, 4, rows);
    attn_tensor keys[] = {random_tensor(prefix_data[0], 3, prefix),
                          random_tensor(suffix_data[0], 4, suffixes)};
    attn_tensor values[] = {random_tensor(prefix_data[1], 3, prefix),
                            random_tensor(suffix_data[1], 4, suffixes)};
    attn_tensor outputs[2], lses[2];
    for (int part = 0; part < 2; part++) {
        check(attn_tensor_init(&outputs[part], output_data[part], ATTN_DTYPE_FLOAT32, 4, rows));
        check(attn_tensor_init(&lses[part], lse_data[part], ATTN_DTYPE_FLOAT32, 3, rows));
    }

    /* To the prefix the sequences' queries are rows of one batch: (SEQUENCES, HEADS, 1, FEATURES)
     * read as (HEADS, SEQUENCES, FEATURES), output and lse likewise. Nothing is copied. */
    attn_tensor folded_query, folded_output, folded_lse;
    check(attn_tensor_select(&query, 2, 0, &folded_query));
    check(attn_tensor_transpose(&folded_query, 0, 1, &folded_query));
    check(attn_tensor_select(&outputs[0], 2, 0, &folded_output));
    check(attn_tensor_transpose(&folded_output, 0, 1, &folded_output));
    check(attn_tensor_select(&lses[0], 2, 0, &folded_lse));
    check(attn_tensor_transpose(&folded_lse, 0, 1, &folded_lse));
    attn_sdpa_params params = {.struct_size = sizeof params, .lse = &folded_lse};
    check(attn_sdpa(NULL, &folded_query, &keys[0], &values[0], &params, &folded_output, NULL, 0));

    /* The suffixes, each with its own length; one of 0 sees nothing, and weighs nothing below. */
    int64_t lengths_data[SEQUENCES];
    for (int sequence = 0; sequence < SEQUENCES; sequence++) {
        lengths_data[sequence] = suffix_lengths[sequence];
    }
    attn_tensor lengths;
    check(attn_tensor_init(&lengths, lengths_data, ATTN_DTYPE_INT64, 1, (int64_t[]){SEQUENCES}));
    params =
        (attn_sdpa_params){.struct_size = sizeof params, .key_lengths = &lengths, .lse = &lses[1]};
    check(attn_sdpa(NULL, &query, &keys[1], &values[1], &params, &outputs[1], NULL, 0));

    /* Both together, into the memory of the first. */
    check(attn_sdpa_merge(NULL, 2, outputs, lses, NULL, &outputs[0], &lses[0]));

    for (int64_t sequence = 0; sequence < SEQUENCES; sequence++) {
        const double error = difference(&query, keys, values, &outputs[0], sequence);
        printf("sequence %d: %d shared keys and %2d of its own: %s\n", (int)sequence, PREFIX,
               (int)suffix_lengths[sequence],
               error < 1e-5 ? "the same as in one piece" : "not the same");
        if (!(error < 1e-5)) {
            fprintf(stderr, "largest difference %g\n", error);
            return EXIT_FAILURE;
        }
    }
    return EXIT_SUCCESS;
}
