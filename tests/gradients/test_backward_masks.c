/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_masks.c: the gradient of a mask that is wanted beside those of query, key and value
 * is summed in their pass, by many heads and batches in turn. It has the bits that it has alone,
 * where it has a pass of its own, on any threads, with sequences that have fewer blocks of keys than
 * others, or none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { BATCHES = 3, HEADS = 4, KV_HEADS = 2, ROWS = 230, KEYS = 600, FEATURES = 8, RANK = 4 };

enum {
    OF_QUERY = BATCHES * HEADS * ROWS * FEATURES,
    OF_KEY = BATCHES * KV_HEADS * KEYS * FEATURES,
    OF_LSE = BATCHES * HEADS * ROWS,
    OF_MASK = BATCHES * HEADS * ROWS * KEYS
};

static float query[OF_QUERY], key[OF_KEY], value[OF_KEY], output[OF_QUERY], given[OF_QUERY];
static float lse[OF_LSE], mask[OF_MASK];
static int64_t lengths[BATCHES] = {KEYS, 0, 130};

typedef struct results {
    float query[OF_QUERY], key[OF_KEY], value[OF_KEY], mask[OF_MASK];
} results;

static results expected, found;

/* Deterministic, between -1 and 1. */
static void fill(float *numbers, int count, unsigned seed) {
    for (int i = 0; i < count; ++i) {
        seed = seed * 1664525U + 1013904223U;
        numbers[i] = (float)(seed >> 8) / 8388608.0F - 1.0F;
    }
}

static attn_tensor tensor_of(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, data, dtype, rank, shape), ATTN_OK);
    return tensor;
}

static attn_tensor rows_of(float *data, int64_t heads, int64_t rows, int64_t cols) {
    const int64_t shape[] = {BATCHES, heads, rows, cols};
    return tensor_of(data, ATTN_DTYPE_FLOAT32, RANK, shape);
}

/* A call whose mask has these numbers of batches and heads. */
typedef struct masked_call {
    int64_t batches;
    int64_t heads;
    int32_t is_causal;
    int32_t num_threads;
} masked_call;

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
}

/* Forward, then the gradients; of the mask alone if `is_alone`. */
static void differentiate(const masked_call *call, int is_alone, results *to) {
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = call->num_threads};
    attn_context *context = NULL;
    check(attn_context_create(&config, &context));
    const int64_t mask_shape[] = {call->batches, call->heads, ROWS, KEYS};
    const int64_t lse_shape[] = {BATCHES, HEADS, ROWS};
    const int64_t batches[] = {BATCHES};
    const attn_tensor q = rows_of(query, HEADS, ROWS, FEATURES);
    const attn_tensor k = rows_of(key, KV_HEADS, KEYS, FEATURES);
    const attn_tensor v = rows_of(value, KV_HEADS, KEYS, FEATURES);
    const attn_tensor o = rows_of(output, HEADS, ROWS, FEATURES);
    const attn_tensor of_output = rows_of(given, HEADS, ROWS, FEATURES);
    const attn_tensor l = tensor_of(lse, ATTN_DTYPE_FLOAT32, RANK - 1, lse_shape);
    const attn_tensor m = tensor_of(mask, ATTN_DTYPE_FLOAT32, RANK, mask_shape);
    const attn_tensor n = tensor_of(lengths, ATTN_DTYPE_INT64, 1, batches);
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .is_causal = call->is_causal,
                                     .enable_gqa = 1,
                                     .mask = &m,
                                     .mask_kind = ATTN_MASK_ADDITIVE,
                                     .key_lengths = &n,
                                     .lse = &l};
    const attn_tensor of_query = rows_of(to->query, HEADS, ROWS, FEATURES);
    const attn_tensor of_key = rows_of(to->key, KV_HEADS, KEYS, FEATURES);
    const attn_tensor of_value = rows_of(to->value, KV_HEADS, KEYS, FEATURES);
    const attn_tensor of_mask = tensor_of(to->mask, ATTN_DTYPE_FLOAT32, RANK, mask_shape);
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = &of_output,
                                           .query = is_alone ? NULL : &of_query,
                                           .key = is_alone ? NULL : &of_key,
                                           .value = is_alone ? NULL : &of_value,
                                           .mask = &of_mask};
    memset(to, 0x55, sizeof *to); /* what was there is not added to */
    check(attn_sdpa(context, &q, &k, &v, &params, &o, NULL, 0));
    check(attn_sdpa_backward(context, &q, &k, &v, &params, &o, &gradients, NULL, 0));
    attn_context_destroy(context);
}

static void check_call(masked_call call) {
    static const int32_t threads[] = {2, 7};
    const size_t mask_bytes = (size_t)(call.batches * call.heads) * ROWS * KEYS * sizeof(float);
    call.num_threads = 1;
    differentiate(&call, 1, &expected);
    differentiate(&call, 0, &found);
    assert_memory_equal(found.mask, expected.mask, mask_bytes);
    expected = found;
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; ++i) {
        call.num_threads = threads[i];
        differentiate(&call, 0, &found);
        assert_memory_equal(&found, &expected, sizeof found);
    }
}

static void mask_beside_inputs_has_the_bits_of_one_alone(void **state) {
    (void)state;
    static const masked_call calls[] = {
        {1, 1, 0, 1},     {1, 1, 1, 1},           {BATCHES, 1, 0, 1},
        {1, HEADS, 1, 1}, {BATCHES, HEADS, 0, 1}, {BATCHES, HEADS, 1, 1},
    };
    fill(query, OF_QUERY, 1);
    fill(key, OF_KEY, 2);
    fill(value, OF_KEY, 3);
    fill(given, OF_QUERY, 4);
    fill(mask, OF_MASK, 5);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
        check_call(calls[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mask_beside_inputs_has_the_bits_of_one_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
