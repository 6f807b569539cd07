/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_repeats.c: what backward reads may repeat along any axis (stride 0): output and lse,
 * too, which are results of the forward call. Batches that are the same need one output and one lse.
 * The gradients are those of the tensors written out, to the bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { BATCHES = 3, HEADS = 2, ROWS = 5, KEYS = 7, FEATURES = 4, RANK = 4 };

enum { OF_QUERY = HEADS * ROWS * FEATURES, OF_KEY = HEADS * KEYS * FEATURES };

typedef struct results {
    float query[BATCHES * OF_QUERY], key[BATCHES * OF_KEY], value[BATCHES * OF_KEY];
} results;

/* Deterministic, between -1 and 1. */
static void fill(float *numbers, int count, unsigned seed) {
    for (int i = 0; i < count; ++i) {
        seed = seed * 1664525U + 1013904223U;
        numbers[i] = (float)(seed >> 8) / 8388608.0F - 1.0F;
    }
}

/* (BATCHES, HEADS, rows, cols) of one batch that repeats. */
static attn_tensor repeated(float *data, int64_t rows, int64_t cols) {
    const int64_t shape[] = {BATCHES, HEADS, rows, cols};
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, data, ATTN_DTYPE_FLOAT32, RANK, shape), ATTN_OK);
    tensor.strides[0] = 0;
    return tensor;
}

static attn_tensor whole(float *data, int64_t rows, int64_t cols) {
    attn_tensor tensor = repeated(data, rows, cols);
    tensor.strides[0] = HEADS * rows * cols;
    return tensor;
}

/* lse is (BATCHES, HEADS, ROWS). */
static attn_tensor lse_of(float *data, int64_t batch_stride) {
    const int64_t shape[] = {BATCHES, HEADS, ROWS};
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, data, ATTN_DTYPE_FLOAT32, RANK - 1, shape), ATTN_OK);
    tensor.strides[0] = batch_stride;
    return tensor;
}

static void differentiate(const attn_tensor inputs[3], const attn_tensor *output,
                          const attn_tensor *lse, const attn_tensor *given, results *found) {
    const attn_tensor query = whole(found->query, ROWS, FEATURES);
    const attn_tensor key = whole(found->key, KEYS, FEATURES);
    const attn_tensor value = whole(found->value, KEYS, FEATURES);
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1, .lse = lse};
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = given,
                                           .query = &query,
                                           .key = &key,
                                           .value = &value};
    const attn_status status = attn_sdpa_backward(NULL, &inputs[0], &inputs[1], &inputs[2], &params,
                                                  output, &gradients, NULL, 0);
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
}

static void results_that_repeat_are_read(void **state) {
    (void)state;
    float query[OF_QUERY], key[OF_KEY], value[OF_KEY], of_output[OF_QUERY];
    fill(query, OF_QUERY, 1);
    fill(key, OF_KEY, 2);
    fill(value, OF_KEY, 3);
    fill(of_output, OF_QUERY, 4);
    const attn_tensor inputs[] = {repeated(query, ROWS, FEATURES), repeated(key, KEYS, FEATURES),
                                  repeated(value, KEYS, FEATURES)};
    const attn_tensor given = repeated(of_output, ROWS, FEATURES);

    float output_data[BATCHES * OF_QUERY], lse_data[BATCHES * HEADS * ROWS];
    const attn_tensor output = whole(output_data, ROWS, FEATURES);
    const attn_tensor lse = lse_of(lse_data, HEADS * ROWS);
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1, .lse = &lse};
    assert_int_equal(attn_sdpa(NULL, &inputs[0], &inputs[1], &inputs[2], &params, &output, NULL, 0),
                     ATTN_OK);

    results expected, found;
    differentiate(inputs, &output, &lse, &given, &expected);
    const attn_tensor one_output = repeated(output_data, ROWS, FEATURES);
    const attn_tensor one_lse = lse_of(lse_data, 0);
    differentiate(inputs, &one_output, &one_lse, &given, &found);
    assert_memory_equal(&found, &expected, sizeof found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_that_repeat_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
