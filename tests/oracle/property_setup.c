/* SPDX-License-Identifier: BSD-3-Clause
 *
 * property_setup.c: builds the calls the property tests compare.
 */
#include "property_setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "support/oracle_sdpa.h"
#include "support/oracle_tensor.h"

void assert_ok(attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
}

void assert_close(const char *name, const attn_tensor *actual, const oracle_array *expected) {
    compare_stats stats = {0};
    char message[400];
    if (compare_tensor(name, actual, expected, &stats, message, sizeof message)) {
        fail_msg("%s", message);
    }
}

void assert_same_bits(const char *name, const attn_tensor *actual, const attn_tensor *expected) {
    char message[400];
    if (compare_same_bits(name, actual, expected, message, sizeof message)) {
        fail_msg("%s", message);
    }
}

static attn_tensor *random_input(tensor_pool *pool, int32_t dtype, int32_t rank,
                                 const int64_t *shape, random_state *random) {
    attn_tensor *tensor = pool_input(pool, dtype, rank, shape, LAYOUT_CONTIGUOUS);
    random_fill(tensor, random, -1, 1, 0);
    return tensor;
}

void sdpa_setup_create(sdpa_setup *setup, const sdpa_sizes *sizes, uint64_t seed) {
    const int64_t n = sizes->batch, h = sizes->heads, l = sizes->rows, s = sizes->keys;
    *setup = (sdpa_setup){.sizes = *sizes,
                          .random = random_seeded(seed),
                          .params = {.struct_size = sizeof setup->params}};
    const int32_t lse_dtype =
        sizes->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    setup->query = random_input(&setup->pool, sizes->dtype, 4,
                                (const int64_t[]){n, h, l, sizes->features}, &setup->random);
    setup->key =
        random_input(&setup->pool, sizes->dtype, 4,
                     (const int64_t[]){n, sizes->kv_heads, s, sizes->features}, &setup->random);
    setup->value = random_input(&setup->pool, sizes->dtype, 4,
                                (const int64_t[]){n, sizes->kv_heads, s, sizes->value_features},
                                &setup->random);
    setup->output =
        pool_output(&setup->pool, sizes->dtype, 4,
                    (const int64_t[]){n, h, l, sizes->value_features}, LAYOUT_CONTIGUOUS);
    setup->lse =
        pool_output(&setup->pool, lse_dtype, 3, (const int64_t[]){n, h, l}, LAYOUT_CONTIGUOUS);
    setup->weights = pool_output(&setup->pool, sizes->dtype, 4, (const int64_t[]){n, h, l, s},
                                 LAYOUT_CONTIGUOUS);
    setup->params.enable_gqa = sizes->kv_heads != sizes->heads;
    setup->params.lse = setup->lse;
    setup->params.weights = setup->weights;
}

void sdpa_setup_destroy(sdpa_setup *setup) {
    pool_destroy(&setup->pool);
}

void sdpa_setup_run(attn_context *context, const sdpa_setup *setup) {
    assert_ok(attn_sdpa(context, setup->query, setup->key, setup->value, &setup->params,
                        setup->output, NULL, 0));
}

oracle_result sdpa_setup_expect_of(const sdpa_setup *setup, const char *kernels) {
    const double weight_unit = oracle_weight_unit(kernels, setup->query, setup->key, setup->value);
    return oracle_sdpa(setup->query, setup->key, setup->value, &setup->params, weight_unit);
}

oracle_result sdpa_setup_expect(const sdpa_setup *setup) {
    return sdpa_setup_expect_of(setup, attn_kernels_name(0));
}

void assert_sdpa_equals(const sdpa_setup *setup, const oracle_result *same) {
    oracle_result own = sdpa_setup_expect(setup);
    const oracle_array output = {same->output.count, same->output.value, own.output.error};
    const oracle_array lse = {same->lse.count, same->lse.value, own.lse.error};
    const oracle_array weights = {same->weights.count, same->weights.value, own.weights.error};
    assert_close("output", setup->output, &output);
    assert_close("lse", setup->lse, &lse);
    assert_close("weights", setup->weights, &weights);
    oracle_result_destroy(&own);
}

attn_tensor *reordered(tensor_pool *pool, const attn_tensor *tensor, int32_t axis, int64_t length,
                       const int64_t *order) {
    const int32_t at = axis < 0 ? tensor->rank + axis : axis;
    int64_t shape[ATTN_MAX_RANK], index[ATTN_MAX_RANK] = {0}, source[ATTN_MAX_RANK];
    memcpy(shape, tensor->shape, sizeof shape);
    shape[at] = length;
    attn_tensor *result = pool_input(pool, tensor->dtype, tensor->rank, shape, LAYOUT_CONTIGUOUS);
    do {
        memcpy(source, index, sizeof source);
        source[at] = order[index[at]];
        memcpy(oracle_address(result, index), oracle_address(tensor, source),
               attn_dtype_size_bytes(tensor->dtype));
    } while (oracle_next_index(tensor->rank, shape, index));
    return result;
}

attn_tensor *copied(tensor_pool *pool, const attn_tensor *tensor) {
    int64_t index[ATTN_MAX_RANK] = {0};
    attn_tensor *result =
        pool_input(pool, tensor->dtype, tensor->rank, tensor->shape, LAYOUT_CONTIGUOUS);
    do {
        memcpy(oracle_address(result, index), oracle_address(tensor, index),
               attn_dtype_size_bytes(tensor->dtype));
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
    return result;
}

void random_order(random_state *random, int64_t count, int64_t *order) {
    for (int64_t i = 0; i < count; ++i) {
        const int64_t j = random_between(random, 0, i);
        order[i] = order[j];
        order[j] = i;
    }
}

attn_context *native_context(int32_t num_threads) {
    const attn_context_config params = {
        .struct_size = sizeof params, .num_threads = num_threads, .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    assert_ok(attn_context_create(&params, &context));
    return context;
}

static void add_parameters(mha_setup *setup) {
    int64_t count;
    assert_ok(attn_mha_parameter_count(setup->layer, &count));
    for (int64_t i = 0; i < count; ++i) {
        oracle_parameter *parameter = &setup->parameters[setup->num_parameters++];
        attn_tensor shape;
        assert_ok(attn_mha_parameter_describe(setup->layer, i, &parameter->name, &shape));
        parameter->values =
            *random_input(&setup->pool, shape.dtype, shape.rank, shape.shape, &setup->random);
        assert_ok(
            attn_mha_load_parameter(NULL, setup->layer, parameter->name, &parameter->values, NULL));
    }
}

/* (L, N, width), (N, L, width) or, with batch 0, (L, width). */
static int32_t sequence_shape(const attn_mha_config *config, int64_t batch, int64_t length,
                              int64_t width, int64_t *shape) {
    int32_t rank = 0;
    if (batch > 0 && config->batch_first) {
        shape[rank++] = batch;
    }
    shape[rank++] = length;
    if (batch > 0 && !config->batch_first) {
        shape[rank++] = batch;
    }
    shape[rank++] = width;
    return rank;
}

void mha_setup_create(mha_setup *setup, const attn_mha_config *config, int64_t batch, int64_t rows,
                      int64_t keys, uint64_t seed) {
    *setup = (mha_setup){.random = random_seeded(seed),
                         .config = *config,
                         .attention = {.struct_size = sizeof setup->attention},
                         .params = {.struct_size = sizeof setup->params}};
    const oracle_mha_sizes s = oracle_mha_resolve(config);
    int64_t shape[3];
    assert_ok(attn_mha_create(NULL, config, &setup->layer));
    add_parameters(setup);
    int32_t rank = sequence_shape(config, batch, rows, s.qdim, shape);
    setup->query = random_input(&setup->pool, s.dtype, rank, shape, &setup->random);
    rank = sequence_shape(config, batch, keys, s.kdim, shape);
    setup->key = random_input(&setup->pool, s.dtype, rank, shape, &setup->random);
    rank = sequence_shape(config, batch, keys, s.vdim, shape);
    setup->value = random_input(&setup->pool, s.dtype, rank, shape, &setup->random);
    rank = sequence_shape(config, batch, rows, s.embed_dim, shape);
    setup->output = pool_output(&setup->pool, s.dtype, rank, shape, LAYOUT_CONTIGUOUS);
    const int64_t weights_shape[] = {batch, s.num_heads, rows, keys + s.extra_keys};
    const int skipped = batch == 0;
    setup->weights =
        pool_output(&setup->pool, s.dtype, 4 - skipped, weights_shape + skipped, LAYOUT_CONTIGUOUS);
    setup->attention.weights = setup->weights;
    setup->params.attention = &setup->attention;
}

void mha_setup_destroy(mha_setup *setup) {
    attn_mha_destroy(setup->layer);
    pool_destroy(&setup->pool);
}

void mha_setup_run(attn_context *context, const mha_setup *setup) {
    assert_ok(attn_mha_forward(context, setup->layer, setup->query, setup->key, setup->value,
                               &setup->params, setup->output, NULL, 0));
}

oracle_mha_result mha_setup_expect(const mha_setup *setup) {
    return oracle_mha(&setup->config, setup->parameters, setup->num_parameters, setup->query,
                      setup->key, setup->value, &setup->params);
}
