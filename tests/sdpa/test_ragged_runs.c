/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_ragged_runs.c: sequences with query rows of their own number, computed together: each has
 * the bits that it has alone, also where what their chunks of keys put aside is too much for all at
 * once; and the workspace that a call is told is enough for any numbers of rows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/random.h"

enum { MOST_SEQUENCES = 12 };

/* Heads share one key head; all sequences have room for `room` keys and use the first `keys`. */
typedef struct ragged_case {
    int64_t heads, room, keys, features, value_features, window;
    int64_t num_sequences;
    int64_t rows[MOST_SEQUENCES];
} ragged_case;

typedef struct ragged_data {
    float *query, *key, *value, *together, *alone;
    int64_t starts[MOST_SEQUENCES + 1];
    int64_t length;
} ragged_data;

static float *random_floats(random_state *random, int64_t count, int64_t filled) {
    float *floats = calloc((size_t)count + 1, sizeof *floats);
    assert_non_null(floats);
    for (int64_t i = 0; i < filled; ++i) {
        floats[i] = (float)random_between(random, -100, 100) / 64;
    }
    return floats;
}

static ragged_data make_data(const ragged_case *c) {
    random_state random = random_seeded(7);
    ragged_data data = {.length = c->keys};
    for (int64_t i = 0; i < c->num_sequences; ++i) {
        data.starts[i + 1] = data.starts[i] + c->rows[i];
    }
    const int64_t rows = c->heads * data.starts[c->num_sequences];
    data.query = random_floats(&random, rows * c->features, rows * c->features);
    data.key = random_floats(&random, c->room * c->features, c->keys * c->features);
    data.value = random_floats(&random, c->room * c->value_features, c->keys * c->value_features);
    data.together = random_floats(&random, rows * c->value_features, 0);
    data.alone = random_floats(&random, rows * c->value_features, 0);
    return data;
}

static void free_data(ragged_data *data) {
    free(data->query);
    free(data->key);
    free(data->value);
    free(data->together);
    free(data->alone);
}

static attn_tensor view(void *data, int32_t rank, const int64_t *shape, int32_t dtype) {
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, data, dtype, rank, shape), ATTN_OK);
    return tensor;
}

/* Rows [first, past) of (heads, total, cols). */
static attn_tensor rows_of(float *data, const ragged_case *c, const ragged_data *d, int64_t first,
                           int64_t past, int64_t cols) {
    const int64_t shape[] = {c->heads, past - first, cols};
    attn_tensor tensor = view(data + first * cols, 3, shape, ATTN_DTYPE_FLOAT32);
    tensor.strides[0] = d->starts[c->num_sequences] * cols;
    return tensor;
}

static void attend(attn_context *context, const ragged_case *c, ragged_data *d, int64_t first,
                   int64_t past, float *out, int is_ragged) {
    const int64_t key_shape[] = {1, c->room, c->features};
    const int64_t value_shape[] = {1, c->room, c->value_features};
    const int64_t starts_shape[] = {c->num_sequences + 1};
    attn_tensor query = rows_of(d->query, c, d, first, past, c->features);
    attn_tensor output = rows_of(out, c, d, first, past, c->value_features);
    attn_tensor key = view(d->key, 3, key_shape, ATTN_DTYPE_FLOAT32);
    attn_tensor value = view(d->value, 3, value_shape, ATTN_DTYPE_FLOAT32);
    attn_tensor length = view(&d->length, 0, NULL, ATTN_DTYPE_INT64);
    attn_tensor starts = view(d->starts, 1, starts_shape, ATTN_DTYPE_INT64);
    attn_sdpa_params params = {.struct_size = sizeof params,
                               .set = ATTN_SDPA_SET_WINDOW,
                               .enable_gqa = 1,
                               .is_causal = 1,
                               .align_end = 1,
                               .window_left = c->window,
                               .key_lengths = &length,
                               .query_starts = is_ragged ? &starts : NULL};
    size_t bytes = 0;
    assert_int_equal(
        attn_sdpa_workspace_bytes(context, &query, &key, &value, &params, &output, &bytes),
        ATTN_OK);
    void *workspace = malloc(bytes + 1);
    assert_non_null(workspace);
    memset(workspace, 0xff, bytes + 1);
    if (attn_sdpa(context, &query, &key, &value, &params, &output, workspace, bytes) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    free(workspace);
}

/* All sequences in one call, and each in one of its own. */
static void check_case(const ragged_case *c, int32_t num_threads) {
    attn_context *context = NULL;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = num_threads};
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    ragged_data data = make_data(c);
    const int64_t total = data.starts[c->num_sequences];
    attend(context, c, &data, 0, total, data.together, 1);
    for (int64_t i = 0; i < c->num_sequences; ++i) {
        attend(context, c, &data, data.starts[i], data.starts[i + 1], data.alone, 0);
    }
    const size_t bytes = (size_t)(c->heads * total * c->value_features) * sizeof(float);
    assert_memory_equal(data.together, data.alone, bytes);
    free_data(&data);
    attn_context_destroy(context);
}

static void check_by_any_threads(const ragged_case *c) {
    check_case(c, 1);
    check_case(c, 3);
}

static void rows_of_any_number_are_those_of_calls_alone(void **state) {
    static const ragged_case cases[] = {
        {4, 600, 600, 16, 24, -1, 6, {7, 1, 0, 50, 50, 1}},
        {4, 5000, 4500, 8, 16, -1, 4, {1, 1, 90, 3}},
        {2, 2600, 2500, 8, 8, 2100, 12, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
        {1, 40, 33, 5, 3, -1, 5, {0, 0, 20, 0, 0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        check_by_any_threads(&cases[i]);
    }
}

/* Each puts aside 8 chunks of its rows of 130 floats, 4.2 MB of 1,000 rows, of which only the two
 * that its window reaches are computed; more than 10 MiB wait: two fit together, none does, some do. */
static void sequences_that_do_not_fit_together_are_those_of_calls_alone(void **state) {
    static const ragged_case cases[] = {
        {1, 16384, 2600, 4, 128, 40, 4, {1000, 1001, 1002, 999}},
        {1, 16384, 2600, 4, 128, 40, 3, {1500, 1501, 1499}},
        {1, 16384, 2600, 4, 128, 40, 6, {1500, 3, 1400, 1300, 5, 1501}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        check_by_any_threads(&cases[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_any_number_are_those_of_calls_alone),
        cmocka_unit_test(sequences_that_do_not_fit_together_are_those_of_calls_alone),
    };
    return cmocka_run_group_tests_name("ragged_runs", tests, NULL, NULL);
}
