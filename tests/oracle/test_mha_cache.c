/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_cache.c: a layer with a cache has the bits of the calls it stands for, attn_rms_norm,
 * attn_rope, attn_kv_append and attn_sdpa of what it projects, in the cache and in all outputs, step
 * by step; and with extra columns the numbers of float64.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mha_cache_calls.h"
#include "mha_cache_program.h"
#include "property_setup.h"
#include "support/oracle_attention.h"
#include "support/oracle_tensor.h"

static int is_batched(const mha_cache_case *built) {
    return cache_level(built, CACHE_FORM) != FORM_UNBATCHED;
}

/* ---- comparisons ---- */

static void assert_same(const mha_cache_case *built, const char *name, const attn_tensor *actual,
                        const attn_tensor *expected) {
    char message[300];
    if (actual != NULL && compare_same_bits(name, actual, expected, message, sizeof message) != 0) {
        mha_cache_fail(built, message);
    }
}

/* output (N, L, E) in the case's form and context (N, L, H, Dv). */
static void assert_output(const mha_cache_case *built, const attn_tensor *context) {
    int64_t index[4] = {0};
    if (oracle_count(4, context->shape) == 0) {
        return;
    }
    do {
        int64_t at[3];
        mha_cache_input_index(built, index[0], index[1], index[2] * built->value_dim + index[3],
                              at);
        const double expected = oracle_element(context, index);
        const double got = oracle_element(built->output, at);
        if (expected != got) {
            char message[200];
            snprintf(message, sizeof message, "output[%lld, %lld, %lld]: expected %.17g, got %.17g",
                     (long long)index[0], (long long)index[1],
                     (long long)(index[2] * built->value_dim + index[3]), expected, got);
            mha_cache_fail(built, message);
        }
    } while (oracle_next_index(4, context->shape, index));
}

static attn_tensor *like(mha_cache_case *built, const attn_tensor *tensor) {
    return tensor == NULL ? NULL
                          : pool_output(&built->step_pool, tensor->dtype, tensor->rank,
                                        tensor->shape, LAYOUT_CONTIGUOUS);
}

static void compare_with_calls(mha_cache_case *built, attn_context *context,
                               const attn_tensor *query) {
    const int64_t shape[] = {built->batch, built->step.queries, built->heads, built->value_dim};
    attn_tensor *output =
        pool_output(&built->step_pool, built->score_dtype, 4, shape, LAYOUT_CONTIGUOUS);
    attn_tensor *lse = like(built, built->lse), *weights = like(built, built->weights);
    attn_tensor *scores = like(built, built->scores);
    mha_cache_attend(built, context, query, output, lse, weights, scores);
    assert_output(built, output);
    assert_same(built, "lse", built->lse, lse);
    assert_same(built, "weights", built->weights, weights);
    assert_same(built, "scores", built->scores, scores);
}

/* ---- float64, with extra columns ---- */

/* What an element of the cache means. */
static double cached_number(const mha_cache_case *built, int is_value, const int64_t at[4]) {
    const cache_memory *memory = &built->by_layer;
    const attn_tensor *cached = is_value ? memory->value : memory->key;
    const attn_tensor *scale = memory->scale[is_value], *zero = memory->zero[is_value];
    const int64_t values = attn_dtype_values(cached->dtype);
    int64_t index[4], number_index[4];
    mha_cache_index(built, at[0], at[1], at[2], at[3] / values, index);
    mha_cache_index(built, at[0], at[1], at[2], 0, number_index);
    const unsigned char *bytes = oracle_address(cached, index);
    double element = 0;
    if (cached->dtype == ATTN_DTYPE_INT8) {
        element = (double)(signed char)bytes[0];
    } else if (cached->dtype == ATTN_DTYPE_UINT8) {
        element = bytes[0];
    } else if (cached->dtype == ATTN_DTYPE_INT4X2) {
        const int half = at[3] % 2 ? bytes[0] >> 4 : bytes[0] & 15;
        element = half >= 8 ? half - 16 : half;
    } else if (cached->dtype == ATTN_DTYPE_Q8_0) {
        attn_tensor of_block = {(void *)(uintptr_t)bytes, ATTN_DTYPE_FLOAT16, 0, {0}, {0}};
        return (double)(signed char)bytes[2 + at[3] % 32] * oracle_element(&of_block, number_index);
    } else {
        return oracle_element(cached, index);
    }
    const double subtracted = zero != NULL ? oracle_element(zero, number_index) : 0;
    return (element - subtracted) * oracle_element(scale, number_index);
}

/* Keys or values of all query heads (B, H, T, width): rows of the cache, then the extra ones. */
static void set_rows(const mha_cache_case *built, int is_value, const oracle_problem *p,
                     int64_t width, const oracle_array *to) {
    const int64_t all = p->keys + p->extra_keys;
    for (int64_t i = 0; i < to->count; ++i) {
        const int64_t head = i / width / all % p->heads / (p->heads / built->kv_heads);
        const int64_t at[] = {i / width / all / p->heads, head, i / width % all, i % width};
        if (at[2] < p->key_lengths[at[0]]) {
            to->value[i] = cached_number(built, is_value, at);
            to->error[i] = 2 * p->rounding.unit * fabs(to->value[i]);
        } else if (at[2] == p->keys && built->extra[is_value] != NULL) {
            const int64_t index[] = {0, 0, head * width + at[3]};
            to->value[i] = oracle_element(built->extra[is_value], index);
        }
    }
}

static void compare_with_float64(const mha_cache_case *built, const attn_tensor *query) {
    oracle_problem p = {
        .batches = built->batch,
        .heads = built->heads,
        .rows = built->step.queries,
        .keys = CACHE_ROOM,
        .extra_keys = built->config.add_bias_kv + built->config.add_zero_attn,
        .features = built->head_dim,
        .value_features = built->value_dim,
        .rounding = bound_rounding_of(built->score_dtype),
    };
    char message[300];
    compare_stats stats = {0};
    oracle_problem_allocate(&p);
    oracle_problem_set_options(&p, &built->attention);
    for (int64_t b = 0; b < p.batches; ++b) {
        p.key_lengths[b] = mha_cache_length(built, b);
    }
    oracle_problem_align_end(&p);
    const attn_tensor heads = mha_cache_heads(built, query);
    free(p.query.value);
    p.query.value = oracle_expand(&heads, heads.rank, heads.shape);
    set_rows(built, 0, &p, p.features, &p.key);
    set_rows(built, 1, &p, p.value_features, &p.value);
    oracle_result expected = oracle_attention(&p);
    attn_tensor output = *built->output;
    if (is_batched(built) && !built->config.batch_first) {
        output.shape[0] = built->output->shape[1];
        output.shape[1] = built->output->shape[0];
        output.strides[0] = built->output->strides[1];
        output.strides[1] = built->output->strides[0];
    }
    oracle_array merged = oracle_array_create(expected.output.count);
    for (int64_t i = 0; i < merged.count; ++i) {
        const int64_t width = p.value_features, d = i % width, row = i / width % p.rows;
        const int64_t bh = i / width / p.rows;
        const int64_t to = ((bh / p.heads * p.rows + row) * p.heads + bh % p.heads) * width + d;
        merged.value[to] = expected.output.value[i];
        merged.error[to] = expected.output.error[i];
    }
    int failed = compare_tensor("output", &output, &merged, &stats, message, sizeof message);
    if (!failed && built->weights != NULL) {
        failed = compare_tensor("weights", built->weights, &expected.weights, &stats, message,
                                sizeof message);
    }
    if (failed) {
        mha_cache_fail(built, message);
    }
    oracle_array_destroy(&merged);
    oracle_result_destroy(&expected);
    oracle_problem_destroy(&p);
}

/* ---- cases ---- */

static void layer_has_the_bits_of_its_calls(attn_context *context, attn_context *of_calls,
                                            const factor_case *chosen, uint64_t seed) {
    static mha_cache_case built;
    mha_cache_case_build(&built, of_calls, chosen, seed);
    for (int i = 0; i < NUM_CACHE_STEPS; ++i) {
        mha_cache_step_build(&built, cache_steps[i]);
        mha_cache_forward(&built, context, built.query, built.key, built.value, &built.params,
                          built.output, &built.step_pool);
        mha_cache_append(&built, of_calls);
        mha_cache_assert_same_caches(&built);
        const attn_tensor *query = mha_cache_queries(&built, of_calls);
        if (cache_level(&built, CACHE_EXTRA) == 0) {
            compare_with_calls(&built, of_calls, query);
        } else {
            compare_with_float64(&built, query);
        }
        mha_cache_step_destroy(&built);
    }
    mha_cache_case_destroy(&built);
}

int main(int argc, char **argv) {
    return mha_cache_main(argc, argv, "mha_cache", layer_has_the_bits_of_its_calls);
}
