/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_finite_sums.c: masks and biases at the ends of a type's range, whose sums exceed
 * it. A sum of a finite score and finite masks stays finite, so that such a row is an ordinary one:
 * never empty, never NaN. In every engine, with every kernels, by rows, in lanes and over splits.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, 1, 1, 1, 1, 37, 4, 3},    {ATTN_DTYPE_FLOAT32, 2, 2, 1, 5, 300, 8, 16},
    {ATTN_DTYPE_FLOAT32, 1, 2, 2, 40, 90, 16, 24}, {ATTN_DTYPE_FLOAT32, 1, 1, 1, 2, 5000, 8, 16},
    {ATTN_DTYPE_FLOAT64, 1, 2, 1, 3, 37, 4, 3},    {ATTN_DTYPE_FLOAT64, 2, 1, 1, 40, 130, 8, 16},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0] };

static double largest_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MAX : DBL_MAX;
}

static double unit_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? 0x1p-24 : 0x1p-53;
}

typedef void (*context_check)(attn_context *context, int32_t dtype);

/* The fused engine does not compute float64. */
static void for_every_context(context_check check) {
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
            const attn_context_config config = {.struct_size = sizeof config,
                                                .num_threads = 2,
                                                .engine = engine,
                                                .kernels = attn_kernels_name(kernels)};
            attn_context *context;
            assert_ok(attn_context_create(&config, &context));
            check(context, ATTN_DTYPE_FLOAT32);
            if (engine != ATTN_ENGINE_FUSED) {
                check(context, ATTN_DTYPE_FLOAT64);
            }
            attn_context_destroy(context);
        }
    }
}

static attn_tensor *filled(tensor_pool *pool, int32_t dtype, int32_t rank, const int64_t *shape,
                           double number) {
    attn_tensor *tensor = pool_input(pool, dtype, rank, shape, LAYOUT_CONTIGUOUS);
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        oracle_store(tensor, index, number);
    } while (oracle_next_index(rank, shape, index));
    return tensor;
}

/* Every element of the weights is 1 / columns, up to the roundings of a sum of columns. */
static void assert_even(const attn_tensor *weights) {
    const double columns = (double)weights->shape[weights->rank - 1];
    const double bound = (columns + 8) * unit_of(weights->dtype) / columns;
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        const double weight = oracle_element(weights, index);
        if (!(fabs(weight - 1 / columns) <= bound)) {
            fail_msg("expected 1/%g within %g, got %g", columns, bound, weight);
        }
    } while (oracle_next_index(weights->rank, weights->shape, index));
}

static void assert_all(const char *name, const attn_tensor *tensor, double expected) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        if (oracle_element(tensor, index) != expected) {
            fail_msg("%s: expected %g, got %g", name, expected, oracle_element(tensor, index));
        }
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
}

/* ---- attention ---- */

/* Every score of the setup becomes `score`, by one feature of query and key. */
static void set_scores(sdpa_setup *setup, double score) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        oracle_store(setup->query, index, index[3] == 0);
    } while (oracle_next_index(4, setup->query->shape, index));
    do {
        oracle_store(setup->key, index, index[3] == 0 ? score : 0);
    } while (oracle_next_index(4, setup->key->shape, index));
    setup->params.set |= ATTN_SDPA_SET_SCALE;
    setup->params.scale = 1;
}

/* The output with weights and without, where every key of the setup weighs the same. */
static void check_even_rows(attn_context *context, sdpa_setup *setup, double lse) {
    const sdpa_sizes *s = &setup->sizes;
    sdpa_setup mean;
    sdpa_setup_create(&mean, s, 401);
    mean.params.set |= ATTN_SDPA_SET_SCALE;
    oracle_result expected = sdpa_setup_expect(&mean);
    sdpa_setup_run(context, setup);
    assert_even(setup->weights);
    assert_all("lse", setup->lse, lse);
    assert_close("output", setup->output, &expected.output);
    setup->params.weights = NULL;
    sdpa_setup_run(context, setup);
    assert_all("lse", setup->lse, lse);
    assert_close("output without weights", setup->output, &expected.output);
    oracle_result_destroy(&expected);
    sdpa_setup_destroy(&mean);
}

typedef struct sum_case {
    double score, mask, bias; /* in units of the largest number */
    double lse;               /* likewise */
} sum_case;

static const sum_case sum_cases[] = {
    {0, -1, -1, -1}, {-0.75, -1, 0, -1}, {-0.75, 0, -1, -1},    {-0.75, -0.5, -1, -1}, {0, 1, 1, 1},
    {0.75, 0, 1, 1}, {0.75, 1, 0.5, 1},  {-0.75, -0.75, 0, -1}, {0.75, 0.5, 0, 1},
};

static void check_sums(attn_context *context, int32_t dtype) {
    const double largest = largest_of(dtype);
    for (int i = 0; i < NUM_SIZES; ++i) {
        const sdpa_sizes *s = &all_sizes[i];
        const int64_t shape[] = {s->heads, s->rows, s->keys};
        for (size_t c = 0; s->dtype == dtype && c < sizeof sum_cases / sizeof sum_cases[0]; ++c) {
            const sum_case *sum = &sum_cases[c];
            sdpa_setup setup;
            sdpa_setup_create(&setup, s, 401);
            if (sum->score != 0) {
                set_scores(&setup, sum->score * largest);
            }
            /* One per row, and one for all rows: the ways in which lanes add. */
            const int skipped = c % 2 != 0;
            const int32_t kind = sum->mask != 0 ? ATTN_MASK_ADDITIVE : ATTN_MASK_NONE;
            setup.params.mask_kind = kind;
            setup.params.mask = kind == ATTN_MASK_NONE
                                    ? NULL
                                    : filled(&setup.pool, dtype, 2 - skipped, shape + 1 + skipped,
                                             sum->mask * largest);
            setup.params.bias =
                sum->bias == 0 ? NULL : filled(&setup.pool, dtype, 3, shape, sum->bias * largest);
            check_even_rows(context, &setup, sum->lse * largest);
            sdpa_setup_destroy(&setup);
        }
    }
}

static void keys_at_the_end_of_the_range_weigh_the_same(void **state) {
    (void)state;
    for_every_context(check_sums);
}

/* A key that is not lowered has all the weight, whatever the others' sums would be. */
static void check_one_key(attn_context *context, int32_t dtype) {
    const double lowest = -largest_of(dtype);
    for (int i = 0; i < NUM_SIZES; ++i) {
        const sdpa_sizes *s = &all_sizes[i];
        for (int64_t top = 0; s->dtype == dtype && top < s->keys; top += s->keys - 1) {
            sdpa_setup setup;
            sdpa_setup_create(&setup, s, 409);
            attn_tensor *mask = filled(&setup.pool, dtype, 1, &s->keys, lowest);
            attn_tensor *bias =
                filled(&setup.pool, dtype, 2, (const int64_t[]){s->rows, s->keys}, lowest);
            oracle_store(mask, &top, 0);
            for (int64_t row = 0; row < s->rows; ++row) {
                oracle_store(bias, (const int64_t[]){row, top}, 0);
            }
            setup.params.mask = mask;
            setup.params.mask_kind = ATTN_MASK_ADDITIVE;
            setup.params.bias = bias;
            sdpa_setup_run(context, &setup);
            int64_t index[ATTN_MAX_RANK] = {0};
            do {
                assert_true(oracle_element(setup.weights, index) == (index[3] == top));
            } while (oracle_next_index(4, setup.weights->shape, index));
            do {
                const int64_t head = index[1] / (s->heads / s->kv_heads);
                const int64_t at[] = {index[0], head, top, index[3]};
                assert_true(oracle_element(setup.output, index) == oracle_element(setup.value, at));
            } while (oracle_next_index(4, setup.output->shape, index));
            sdpa_setup_destroy(&setup);
        }
    }
}

static void one_key_above_the_lowest_sums_has_all_the_weight(void **state) {
    (void)state;
    for_every_context(check_one_key);
}

/* ---- layers: three additive tensors ---- */

static void check_layer(attn_context *context, int32_t dtype) {
    static const attn_mha_config configs[] = {
        {.struct_size = sizeof(attn_mha_config), .embed_dim = 12, .num_heads = 3},
        {.struct_size = sizeof(attn_mha_config),
         .embed_dim = 8,
         .num_heads = 4,
         .num_kv_heads = 2,
         .batch_first = 1}};
    const double lowest = -largest_of(dtype);
    for (int c = 0; c < 2; ++c) {
        for (int64_t batch = 0; batch <= 2; batch += 2) {
            attn_mha_config config = configs[c];
            config.dtype = dtype;
            mha_setup setup;
            mha_setup_create(&setup, &config, batch, 21, 70, 419);
            const int64_t padding[] = {batch, 70}, matrix[] = {21, 70};
            const int skipped = batch == 0;
            setup.params.key_padding_mask_kind = ATTN_MASK_ADDITIVE;
            setup.params.key_padding_mask =
                filled(&setup.pool, dtype, 2 - skipped, padding + skipped, lowest);
            setup.attention.mask_kind = ATTN_MASK_ADDITIVE;
            setup.attention.mask = filled(&setup.pool, dtype, 2, matrix, lowest);
            setup.attention.bias = filled(&setup.pool, dtype, 1, matrix + 1, lowest);
            mha_setup_run(context, &setup);
            assert_even(setup.weights);
            mha_setup_destroy(&setup);
        }
    }
}

static void keys_of_a_layer_at_the_lowest_number_weigh_the_same(void **state) {
    (void)state;
    for_every_context(check_layer);
}

/* ---- softmax ---- */

static void check_softmax(attn_context *context, int32_t dtype) {
    static const double parts[][3] = {{-1, -1, -1}, {-0.75, -0.5, -1}, {1, 1, 1}, {0.75, 0.75, 1}};
    const double largest = largest_of(dtype);
    const int64_t shape[] = {3, 75};
    for (int c = 0; c < 4; ++c) {
        tensor_pool pool = {0};
        const attn_tensor *input = filled(&pool, dtype, 2, shape, parts[c][0] * largest);
        const attn_tensor *mask =
            filled(&pool, dtype, 2 - c % 2, shape + c % 2, parts[c][1] * largest);
        const attn_tensor *output = pool_output(&pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
        const attn_tensor *lse = pool_output(&pool, dtype, 1, shape, LAYOUT_CONTIGUOUS);
        const attn_softmax_params params = {.struct_size = sizeof params,
                                            .mask_kind = ATTN_MASK_ADDITIVE,
                                            .mask = mask,
                                            .lse = lse};
        assert_ok(attn_softmax(context, input, &params, output, NULL, 0));
        assert_even(output);
        assert_all("lse", lse, parts[c][2] * largest);
        pool_destroy(&pool);
    }
}

static void numbers_of_softmax_at_the_end_of_the_range_weigh_the_same(void **state) {
    (void)state;
    for_every_context(check_softmax);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_at_the_end_of_the_range_weigh_the_same),
        cmocka_unit_test(one_key_above_the_lowest_sums_has_all_the_weight),
        cmocka_unit_test(keys_of_a_layer_at_the_lowest_number_weigh_the_same),
        cmocka_unit_test(numbers_of_softmax_at_the_end_of_the_range_weigh_the_same),
    };
    return cmocka_run_group_tests_name("properties of finite sums", tests, NULL, NULL);
}
