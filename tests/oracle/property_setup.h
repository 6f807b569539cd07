/* SPDX-License-Identifier: BSD-3-Clause
 *
 * property_setup.h: an attn_sdpa or attn_mha_forward call on random data of given sizes, and what
 * properties are asserted with.
 */
#ifndef ATTENTION_TESTS_PROPERTY_SETUP_H
#define ATTENTION_TESTS_PROPERTY_SETUP_H

#include <attention/attention.h>

#include "support/compare.h"
#include "support/oracle_mha.h"
#include "support/oracle_sdpa.h"
#include "support/random_tensor.h"

typedef struct sdpa_sizes {
    int32_t dtype;
    int64_t batch, heads, kv_heads, rows, keys, features, value_features;
} sdpa_sizes;

/* query, key and value of rank 4, contiguous and random in [-1, 1); output and the optional outputs
 * are contiguous too. */
typedef struct sdpa_setup {
    sdpa_sizes sizes;
    random_state random;
    tensor_pool pool;
    attn_tensor *query, *key, *value, *output, *lse, *weights;
    attn_sdpa_params params; /* with lse and weights */
} sdpa_setup;

/* `setup` must stay where it is. */
void sdpa_setup_create(sdpa_setup *setup, const sdpa_sizes *sizes, uint64_t seed);
void sdpa_setup_destroy(sdpa_setup *setup);

/* Calls attn_sdpa with the setup's tensors and params; fails the test if the call does. */
void sdpa_setup_run(attn_context *context, const sdpa_setup *setup);

/* The oracle's answer to the setup's tensors and params; its bounds are those of the kernels of
 * that name, or of the best ones. */
oracle_result sdpa_setup_expect_of(const sdpa_setup *setup, const char *kernels);
oracle_result sdpa_setup_expect(const sdpa_setup *setup);

/*
 * Fails unless the setup's outputs are those of `same`, within the error bounds of the setup's own
 * call: what two calls must have in common although they round differently.
 */
void assert_sdpa_equals(const sdpa_setup *setup, const oracle_result *same);

/* A contiguous tensor whose index i along the axis is index order[i] of the given one's. Negative
 * axes count from the end. */
attn_tensor *reordered(tensor_pool *pool, const attn_tensor *tensor, int32_t axis, int64_t length,
                       const int64_t *order);

/* A contiguous copy. */
attn_tensor *copied(tensor_pool *pool, const attn_tensor *tensor);

/* 0, 1, ... in random order. */
void random_order(random_state *random, int64_t count, int64_t *order);

/* A context with the library's own matrix product, whose bits do not depend on BLAS. */
attn_context *native_context(int32_t num_threads);

/* Fail the test with a message. */
void assert_ok(attn_status status);
void assert_close(const char *name, const attn_tensor *actual, const oracle_array *expected);
void assert_same_bits(const char *name, const attn_tensor *actual, const attn_tensor *expected);

/* A layer with random parameters, query, key and value in their form, output and per-head weights.
 */
typedef struct mha_setup {
    random_state random;
    tensor_pool pool;
    attn_mha_config config;
    attn_mha *layer;
    oracle_parameter parameters[8];
    int num_parameters;
    attn_tensor *query, *key, *value, *output, *weights;
    attn_sdpa_params attention; /* with per-head weights */
    attn_mha_params params;     /* with that attention */
} mha_setup;

/* batch 0: unbatched. `setup` must stay where it is. */
void mha_setup_create(mha_setup *setup, const attn_mha_config *config, int64_t batch, int64_t rows,
                      int64_t keys, uint64_t seed);
void mha_setup_destroy(mha_setup *setup);
void mha_setup_run(attn_context *context, const mha_setup *setup);
oracle_mha_result mha_setup_expect(const mha_setup *setup);

#endif
