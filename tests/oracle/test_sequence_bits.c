/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sequence_bits.c: a sequence has the bits that it has alone, whichever batch it stands in, at
 * whatever capacity its keys are kept, by any number of threads and in any layout. Every pair of
 * settings by default; with --full also pairs chosen otherwise.
 *
 * A call has sequences of different lengths; the one looked at is called again by itself: a batch
 * of one, contiguous, with exactly its keys, on one thread. Keys and values behind a sequence's
 * length are NaN.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "covering_array.h"
#include "property_setup.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

static int is_full = 0;

enum sequence_factor {
    ENGINE,
    ROWS,
    KEYS,
    CAPACITY,
    BATCH,
    HEADS,
    FEATURES,
    POSITIONS,
    MASKS,
    BIAS,
    OPTIONS,
    OUTPUTS,
    VALUES,
    QUERY_LAYOUT,
    KEY_LAYOUT,
    VALUE_LAYOUT,
    OUTPUT_LAYOUT,
    MASK_LAYOUT,
    WEIGHTS_LAYOUT,
    THREADS,
    SEQUENCE_FACTORS
};

/* Engine and type; MIXED is a float32 query over bfloat16 keys and float16 values. */
enum engines {
    FUSED_FLOAT32,
    FUSED_BFLOAT16,
    FUSED_FLOAT16,
    FUSED_MIXED,
    NATIVE_FLOAT32,
    NATIVE_BFLOAT16,
    NATIVE_FLOAT64
};
static const char *const engine_names[] = {"fused_float32", "fused_bfloat16", "fused_float16",
                                           "fused_mixed",   "native_float32", "native_bfloat16",
                                           "native_float64"};
static const int32_t dtype_of[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16,
                                   ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT32,  ATTN_DTYPE_BFLOAT16,
                                   ATTN_DTYPE_FLOAT64};
static const char *const row_names[] = {"1", "2", "3", "9", "70", "150"};
static const int64_t rows_of[] = {1, 2, 3, 9, 70, 150};
static const char *const key_names[] = {"1", "16", "257", "1025", "2048", "2300", "4300"};
static const int64_t keys_of[] = {1, 16, 257, 1025, 2048, 2300, 4300};
static const char *const capacity_names[] = {"+0", "+1", "+2100"};
static const int64_t capacity_of[] = {0, 1, 2100};
static const char *const batch_names[] = {"1", "2", "3", "9"};
static const int64_t batch_of[] = {1, 2, 3, 9};
static const char *const heads_names[] = {"1,1", "2,2", "4,1", "6,2"};
static const int64_t heads_of[][2] = {{1, 1}, {2, 2}, {4, 1}, {6, 2}};
static const char *const feature_names[] = {"8,8", "40,24", "64,64", "7,130"};
static const int64_t features_of[][2] = {{8, 8}, {40, 24}, {64, 64}, {7, 130}};
enum positions { ALL_KEYS, CAUSAL_END, CAUSAL_OFFSETS, WINDOW, CAUSAL_WINDOW };
static const char *const position_names[] = {"none", "causal_end", "causal_offsets", "window",
                                             "causal_window"};
enum masks { NO_MASK, BOOL_MASK, ADDITIVE_MASK };
static const char *const mask_names[] = {"none", "bool", "additive"};
static const char *const bias_names[] = {"none", "per_head"};
enum options { PLAIN, ALIBI_CAPPED, SINKS, SIGMOID, LINEAR };
static const char *const option_names[] = {"none", "alibi_softcap", "sinks", "sigmoid", "linear"};
enum outputs { OUTPUT_ALONE, LSE, WEIGHTS, AVERAGED };
static const char *const output_names[] = {"output", "lse", "weights", "averaged"};
/* A value that causality hides from some rows of a panel, and 0 * inf is NaN. */
static const char *const value_names[] = {"finite", "infinite_where_hidden_from_some"};
static const char *const thread_names[] = {"1", "2", "3", "7"};
static const int32_t threads_of[] = {1, 2, 3, 7};
enum { NUM_THREADS = 4 };

/* Many sequences of many rows or long capacity say no more, and take long. */
static int is_affordable(int factor_a, int level_a, int factor_b, int level_b) {
    int levels[SEQUENCE_FACTORS] = {0};
    levels[factor_a] = level_a;
    levels[factor_b] = level_b;
    const int is_wide = levels[BATCH] == 3;
    const int is_tall = levels[ROWS] >= 4;
    const int is_long = levels[KEYS] == 6;
    return !(is_wide && (is_tall || levels[CAPACITY] == 2 || levels[FEATURES] == 3)) &&
           !(is_tall && is_long);
}

#define FACTOR(name, names) \
    { name, (int)(sizeof names / sizeof names[0]), names, 0 }

static factor_set sequence_factors(void) {
    static const char *const layouts_of[] = {"query", "key", "value", "output", "mask", "weights"};
    factor_set set = {.factors = {[ENGINE] = FACTOR("engine", engine_names),
                                  [ROWS] = FACTOR("L", row_names),
                                  [KEYS] = FACTOR("S", key_names),
                                  [CAPACITY] = FACTOR("capacity", capacity_names),
                                  [BATCH] = FACTOR("batch", batch_names),
                                  [HEADS] = FACTOR("heads", heads_names),
                                  [FEATURES] = FACTOR("E,Ev", feature_names),
                                  [POSITIONS] = FACTOR("positions", position_names),
                                  [MASKS] = FACTOR("mask", mask_names),
                                  [BIAS] = FACTOR("bias", bias_names),
                                  [OPTIONS] = FACTOR("options", option_names),
                                  [OUTPUTS] = FACTOR("outputs", output_names),
                                  [VALUES] = FACTOR("values", value_names),
                                  [THREADS] = FACTOR("threads", thread_names)},
                      .count = SEQUENCE_FACTORS,
                      .is_allowed = is_affordable};
    for (int f = QUERY_LAYOUT; f <= WEIGHTS_LAYOUT; ++f) {
        set.factors[f] =
            (factor){layouts_of[f - QUERY_LAYOUT], LAYOUT_UNALIGNED, tensor_layout_names, 0};
    }
    return set;
}

/* ---- a call and the one of its sequence alone ---- */

/* Tensors of a call, or of a sequence. */
typedef struct sequence_call {
    attn_tensor *query, *key, *value, *output;
    attn_sdpa_params params;
} sequence_call;

typedef struct sequence_pair {
    const factor_case *chosen;
    random_state random;
    tensor_pool pool;
    int32_t dtype;
    int64_t batch, looked_at, length, capacity;
    sequence_call all, alone;
} sequence_pair;

static int level(const sequence_pair *pair, enum sequence_factor which) {
    return pair->chosen->level[which];
}

/* Tensors of the batch and of the sequence looked at, which has the elements of that batch, cut to
 * the lengths of its own shape. Without a batch axis the tensor is shared. */
static void copy_sequence(const sequence_pair *pair, const attn_tensor *all,
                          const attn_tensor *alone) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(alone->rank, alone->shape) == 0) {
        return;
    }
    do {
        int64_t source[ATTN_MAX_RANK];
        memcpy(source, index, sizeof source);
        source[0] = all->shape[0] == pair->batch ? pair->looked_at : 0;
        memcpy(oracle_address(alone, index), oracle_address(all, source),
               attn_dtype_size_bytes(alone->dtype));
    } while (oracle_next_index(alone->rank, alone->shape, index));
}

static attn_tensor *add_rows(sequence_pair *pair, int32_t dtype, int64_t heads, int64_t rows,
                             int64_t own_rows, int64_t features, int layout, attn_tensor **alone) {
    const int64_t shape[] = {pair->batch, heads, rows, features};
    const int64_t own_shape[] = {1, heads, own_rows, features};
    attn_tensor *all = pool_input(&pair->pool, dtype, 4, shape, (enum tensor_layout)layout);
    random_fill(all, &pair->random, -1, 1, 0);
    *alone = pool_input(&pair->pool, dtype, 4, own_shape, LAYOUT_CONTIGUOUS);
    return all;
}

/* What lies behind the lengths, and values that some rows may not see. */
static void spoil_rows(sequence_pair *pair, const attn_tensor *rows, const attn_tensor *lengths,
                       int is_value) {
    int64_t index[4] = {0};
    do {
        const int64_t length = oracle_integer(lengths, index);
        if (index[2] >= length) {
            oracle_store(rows, index, NAN);
        } else if (is_value && level(pair, VALUES) == 1 && index[2] % 29 == 11) {
            oracle_store(rows, index, INFINITY);
        }
    } while (oracle_next_index(4, rows->shape, index));
}

static attn_tensor *add_integers(sequence_pair *pair, int32_t dtype, int64_t lowest,
                                 int64_t highest) {
    attn_tensor *integers = pool_input(&pair->pool, dtype, 1, &pair->batch, LAYOUT_CONTIGUOUS);
    random_fill_integers(integers, &pair->random, lowest, highest);
    return integers;
}

static void set_positions(sequence_pair *pair) {
    const int positions = level(pair, POSITIONS);
    const int64_t rows = rows_of[level(pair, ROWS)];
    attn_sdpa_params *params = &pair->all.params;
    params->is_causal = positions != ALL_KEYS && positions != WINDOW;
    params->align_end = positions == CAUSAL_END;
    if (positions == WINDOW || positions == CAUSAL_WINDOW) {
        params->set = ATTN_SDPA_SET_WINDOW;
        params->window_left = random_between(&pair->random, 0, pair->length);
        params->window_right = random_between(&pair->random, -1, 40);
    }
    pair->alone.params = *params;
    if (positions == CAUSAL_OFFSETS || positions == CAUSAL_WINDOW) {
        attn_tensor *own = pool_input(&pair->pool, ATTN_DTYPE_INT64, 0, NULL, LAYOUT_CONTIGUOUS);
        params->query_offset =
            add_integers(pair, ATTN_DTYPE_INT64, pair->length - rows - 9, pair->length);
        oracle_store_integer(own, NULL, oracle_integer(params->query_offset, &pair->looked_at));
        pair->alone.params.query_offset = own;
    }
}

static const attn_tensor *add_dense(sequence_pair *pair, int32_t dtype, int64_t heads,
                                    const attn_tensor **alone) {
    const int64_t rows = rows_of[level(pair, ROWS)];
    const int64_t shape[] = {pair->batch, heads, rows, pair->capacity};
    const int64_t own_shape[] = {1, heads, rows, pair->length};
    attn_tensor *all =
        pool_input(&pair->pool, dtype, 4, shape, (enum tensor_layout)level(pair, MASK_LAYOUT));
    attn_tensor *own = pool_input(&pair->pool, dtype, 4, own_shape, LAYOUT_CONTIGUOUS);
    if (dtype == ATTN_DTYPE_BOOL) {
        random_fill_bool(all, &pair->random, 0.3);
    } else {
        random_fill(all, &pair->random, -2, 2, 0);
    }
    copy_sequence(pair, all, own);
    *alone = own;
    return all;
}

static void set_masks(sequence_pair *pair) {
    const int masks = level(pair, MASKS);
    attn_sdpa_params *all = &pair->all.params, *alone = &pair->alone.params;
    if (masks != NO_MASK) {
        const int32_t dtype = masks == BOOL_MASK ? ATTN_DTYPE_BOOL : pair->dtype;
        all->mask_kind = masks == BOOL_MASK ? ATTN_MASK_BOOL_EXCLUDE : ATTN_MASK_ADDITIVE;
        alone->mask_kind = all->mask_kind;
        all->mask = add_dense(pair, dtype, 1, &alone->mask);
    }
    if (level(pair, BIAS) != 0) {
        all->bias = add_dense(pair, pair->dtype, heads_of[level(pair, HEADS)][0], &alone->bias);
    }
}

static void set_options(sequence_pair *pair) {
    const int options = level(pair, OPTIONS);
    attn_sdpa_params *all = &pair->all.params, *alone = &pair->alone.params;
    attn_tensor *of_heads = pool_input(&pair->pool, pair->dtype, 1,
                                       &heads_of[level(pair, HEADS)][0], LAYOUT_CONTIGUOUS);
    random_fill(of_heads, &pair->random, 0, 0.125, 0);
    if (options == ALIBI_CAPPED) {
        all->softcap = alone->softcap = 2;
        all->alibi_slopes = alone->alibi_slopes = of_heads;
    } else if (options == SINKS) {
        all->sinks = alone->sinks = of_heads;
    } else if (options != PLAIN) {
        all->normalizer = alone->normalizer =
            options == SIGMOID ? ATTN_NORMALIZER_SIGMOID : ATTN_NORMALIZER_LINEAR;
    }
}

static attn_tensor *add_output(sequence_pair *pair, int32_t dtype, int32_t rank,
                               const int64_t *shape, int layout, int64_t own_columns,
                               attn_tensor **alone) {
    int64_t own_shape[ATTN_MAX_RANK];
    memcpy(own_shape, shape, (size_t)rank * sizeof *shape);
    own_shape[0] = 1;
    own_shape[rank - 1] = own_columns;
    *alone = pool_output(&pair->pool, dtype, rank, own_shape, LAYOUT_CONTIGUOUS);
    return pool_output(&pair->pool, dtype, rank, shape, (enum tensor_layout)layout);
}

static void set_outputs(sequence_pair *pair) {
    const int64_t heads = heads_of[level(pair, HEADS)][0], rows = rows_of[level(pair, ROWS)];
    const int64_t features = features_of[level(pair, FEATURES)][1];
    const int64_t output[] = {pair->batch, heads, rows, features};
    const int64_t lse[] = {pair->batch, heads, rows};
    const int64_t weights[] = {pair->batch, heads, rows, pair->capacity};
    const int64_t averaged[] = {pair->batch, rows, pair->capacity};
    const int32_t lse_dtype =
        pair->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    attn_tensor *own;
    pair->all.output = add_output(pair, pair->dtype, 4, output, level(pair, OUTPUT_LAYOUT),
                                  features, &pair->alone.output);
    if (level(pair, OUTPUTS) == LSE && pair->all.params.normalizer == ATTN_NORMALIZER_SOFTMAX) {
        pair->all.params.lse =
            add_output(pair, lse_dtype, 3, lse, level(pair, WEIGHTS_LAYOUT), rows, &own);
        pair->alone.params.lse = own;
    } else if (level(pair, OUTPUTS) >= WEIGHTS) {
        const int is_averaged = level(pair, OUTPUTS) == AVERAGED;
        pair->all.params.weights =
            add_output(pair, pair->dtype, is_averaged ? 3 : 4, is_averaged ? averaged : weights,
                       level(pair, WEIGHTS_LAYOUT), pair->length, &own);
        pair->alone.params.weights = own;
    }
}

static void pair_create(sequence_pair *pair, const factor_case *chosen, uint64_t seed) {
    const int64_t *heads = heads_of[chosen->level[HEADS]];
    const int64_t *features = features_of[chosen->level[FEATURES]];
    const int64_t rows = rows_of[chosen->level[ROWS]];
    *pair = (sequence_pair){.chosen = chosen, .random = random_seeded(seed)};
    pair->dtype = dtype_of[chosen->level[ENGINE]];
    pair->batch = batch_of[chosen->level[BATCH]];
    pair->looked_at = random_between(&pair->random, 0, pair->batch - 1);
    pair->length = keys_of[chosen->level[KEYS]];
    pair->capacity = pair->length + capacity_of[chosen->level[CAPACITY]];
    pair->all.params = (attn_sdpa_params){.struct_size = sizeof pair->all.params, .enable_gqa = 1};
    set_positions(pair);
    attn_tensor *lengths = add_integers(pair, ATTN_DTYPE_INT32, 0, pair->capacity);
    oracle_store_integer(lengths, &pair->looked_at, pair->length);
    pair->all.params.key_lengths = lengths;
    const int is_mixed = chosen->level[ENGINE] == FUSED_MIXED;
    const int32_t key_dtype = is_mixed ? ATTN_DTYPE_BFLOAT16 : pair->dtype;
    const int32_t value_dtype = is_mixed ? ATTN_DTYPE_FLOAT16 : pair->dtype;
    pair->all.query = add_rows(pair, pair->dtype, heads[0], rows, rows, features[0],
                               chosen->level[QUERY_LAYOUT], &pair->alone.query);
    pair->all.key = add_rows(pair, key_dtype, heads[1], pair->capacity, pair->length, features[0],
                             chosen->level[KEY_LAYOUT], &pair->alone.key);
    pair->all.value = add_rows(pair, value_dtype, heads[1], pair->capacity, pair->length,
                               features[1], chosen->level[VALUE_LAYOUT], &pair->alone.value);
    spoil_rows(pair, pair->all.key, lengths, 0);
    spoil_rows(pair, pair->all.value, lengths, 1);
    copy_sequence(pair, pair->all.query, pair->alone.query);
    copy_sequence(pair, pair->all.key, pair->alone.key);
    copy_sequence(pair, pair->all.value, pair->alone.value);
    set_masks(pair);
    set_options(pair);
    set_outputs(pair);
}

/* ---- comparing ---- */

static void assert_sequence(const sequence_pair *pair, const factor_set *set, const char *name,
                            const attn_tensor *all, const attn_tensor *alone) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (all == NULL) {
        return;
    }
    do {
        int64_t source[ATTN_MAX_RANK];
        memcpy(source, index, sizeof source);
        source[0] = pair->looked_at;
        const double expected = oracle_element(alone, index), got = oracle_element(all, source);
        const int is_nan = expected != expected && got != got;
        if (!is_nan && memcmp(&expected, &got, sizeof got) != 0) {
            char options[400];
            describe_case(set, pair->chosen, options, sizeof options);
            fail_msg("%s of row %lld: alone %.17g, in its batch %.17g: %s", name,
                     (long long)index[alone->rank - 2], expected, got, options);
        }
    } while (oracle_next_index(alone->rank, alone->shape, index));
}

static void call(attn_context *context, const sequence_call *c) {
    assert_ok(attn_sdpa(context, c->query, c->key, c->value, &c->params, c->output, NULL, 0));
}

static void run_case(attn_context **contexts, const factor_set *set, const factor_case *chosen,
                     uint64_t seed) {
    static sequence_pair pair;
    pair_create(&pair, chosen, seed);
    call(contexts[0], &pair.alone);
    call(contexts[chosen->level[THREADS]], &pair.all);
    assert_sequence(&pair, set, "output", pair.all.output, pair.alone.output);
    assert_sequence(&pair, set, "lse", pair.all.params.lse, pair.alone.params.lse);
    assert_sequence(&pair, set, "weights", pair.all.params.weights, pair.alone.params.weights);
    pool_destroy(&pair.pool);
}

static void create_contexts(attn_context **contexts, int32_t engine, const char *kernels) {
    for (int c = 0; c < NUM_THREADS; ++c) {
        const attn_context_config config = {.struct_size = sizeof config,
                                            .num_threads = threads_of[c],
                                            .engine = engine,
                                            .gemm = ATTN_GEMM_NATIVE,
                                            .kernels = kernels};
        assert_ok(attn_context_create(&config, &contexts[c]));
    }
}

static void run_cases(const char *kernels, uint64_t seed) {
    const factor_set set = sequence_factors();
    attn_context *fused[NUM_THREADS], *native[NUM_THREADS];
    create_contexts(fused, ATTN_ENGINE_FUSED, kernels);
    create_contexts(native, ATTN_ENGINE_BLAS, kernels);
    covering_array array = covering_array_create(&set, seed);
    assert_int_equal(array.count.num_missing, 0);
    for (int64_t i = 0; i < array.num_cases; ++i) {
        const int is_fused = array.cases[i].level[ENGINE] <= FUSED_MIXED;
        run_case(is_fused ? fused : native, &set, &array.cases[i], seed + (uint64_t)i);
    }
    print_message("%s: %lld cases, %d settings, strength %d\n", kernels, (long long)array.num_cases,
                  set.count, test_strength());
    covering_array_destroy(&array);
    for (int c = 0; c < NUM_THREADS; ++c) {
        attn_context_destroy(fused[c]);
        attn_context_destroy(native[c]);
    }
}

static void a_sequence_has_the_bits_it_has_alone(void **state) {
    (void)state;
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        for (uint64_t seed = 1; seed <= (is_full ? 12 : 1); ++seed) {
            run_cases(attn_kernels_name(i), 100 * seed + (uint64_t)i);
        }
    }
}

int main(int argc, char **argv) {
    is_full = argc > 1 && strcmp(argv[1], "--full") == 0;
    if (argc > 1 && !is_full) {
        print_error("usage: test_sequence_bits [--full]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_sequence_has_the_bits_it_has_alone)};
    return cmocka_run_group_tests_name("sequence_bits", tests, NULL, NULL);
}
