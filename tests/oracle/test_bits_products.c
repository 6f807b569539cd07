/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_bits_products.c: the bits of output, weights and lse for 1, 2, 3 and 7 threads and a
 * caller's parallel_for, on every set of kernels, over products of options and sizes that are
 * shared out in every way the engines know: heads, blocks of rows, splits of the keys. Every pair
 * of settings by default, the whole product with --full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "covering_array.h"
#include "property_setup.h"
#include "support/oracle_tensor.h"

static int is_full = 0;

enum bits_factor { SIZES, HEADS, POSITIONS, MASKS, WEIGHTS, BITS_FACTORS };

/* Lengths of queries and keys. */
static const char *const size_names[] = {"1,37",    "1,5000",  "3,9000",  "37,130", "130,37",
                                         "130,600", "600,130", "37,3000", "600,600"};
static const int64_t sizes[][2] = {{1, 37},    {1, 5000},  {3, 9000},  {37, 130}, {130, 37},
                                   {130, 600}, {600, 130}, {37, 3000}, {600, 600}};
static const char *const heads_names[] = {"4,4", "4,1", "6,2"};
static const int64_t heads[][2] = {{4, 4}, {4, 1}, {6, 2}};
static const char *const position_names[] = {"none", "causal", "causal_offsets", "window",
                                             "lengths"};
enum positions { ALL_KEYS, CAUSAL, CAUSAL_OFFSETS, WINDOW, LENGTHS };
static const char *const mask_names[] = {"none", "bool", "additive"};
enum masks { NO_MASK, BOOL_MASK, ADDITIVE_MASK };
static const char *const weights_names[] = {"none", "per_head", "averaged"};
enum weights { NO_WEIGHTS, PER_HEAD, AVERAGED };

static int anything_goes(int factor_a, int level_a, int factor_b, int level_b) {
    (void)factor_a, (void)level_a, (void)factor_b, (void)level_b;
    return 1;
}

static factor_set bits_factors(void) {
    return (factor_set){.factors = {[SIZES] = {"L,S", 9, size_names, 0},
                                    [HEADS] = {"heads", 3, heads_names, 0},
                                    [POSITIONS] = {"positions", 5, position_names, 0},
                                    [MASKS] = {"mask", 3, mask_names, 0},
                                    [WEIGHTS] = {"weights", 3, weights_names, 0}},
                        .count = BITS_FACTORS,
                        .is_allowed = anything_goes};
}

/* ---- contexts ---- */

enum { NUM_CONTEXTS = 5 };

/* What the caller's parallel_for has been given. */
typedef struct caller_pool {
    int64_t num_calls;
    int64_t num_tasks;
} caller_pool;

static int32_t run_backwards(void *state, int64_t count, void (*task)(void *data, int64_t index),
                             void *data) {
    caller_pool *pool = state;
    pool->num_calls += 1;
    pool->num_tasks += count;
    while (count-- > 0) {
        task(data, count);
    }
    return 0;
}

static void create_contexts(attn_context **contexts, int32_t engine, const char *kernels,
                            caller_pool *pool) {
    const int32_t threads[NUM_CONTEXTS] = {1, 2, 3, 7, 4};
    for (int c = 0; c < NUM_CONTEXTS; ++c) {
        const int is_callers = c == NUM_CONTEXTS - 1;
        const attn_context_config params = {.struct_size = sizeof params,
                                            .num_threads = is_callers ? 0 : threads[c],
                                            .parallel_for_width = is_callers ? threads[c] : 0,
                                            .engine = engine,
                                            .gemm = ATTN_GEMM_NATIVE,
                                            .kernels = kernels,
                                            .parallel_for = is_callers ? run_backwards : NULL,
                                            .parallel_for_state = is_callers ? pool : NULL};
        assert_ok(attn_context_create(&params, &contexts[c]));
    }
}

/* ---- calls ---- */

static attn_tensor *batch_integers(sdpa_setup *setup, int64_t lowest, int64_t highest) {
    attn_tensor *integers =
        pool_input(&setup->pool, ATTN_DTYPE_INT64, 1, &setup->sizes.batch, LAYOUT_CONTIGUOUS);
    random_fill_integers(integers, &setup->random, lowest, highest);
    return integers;
}

static void set_positions(sdpa_setup *setup, enum positions positions) {
    const int64_t rows = setup->sizes.rows, keys = setup->sizes.keys;
    setup->params.is_causal = positions == CAUSAL || positions == CAUSAL_OFFSETS;
    if (positions == CAUSAL_OFFSETS) {
        setup->params.query_offset = batch_integers(setup, keys - rows - 20, keys - rows + 20);
    } else if (positions == WINDOW) {
        setup->params.set |= ATTN_SDPA_SET_WINDOW;
        setup->params.window_left = keys / 3;
        setup->params.window_right = keys / 9;
    } else if (positions == LENGTHS) {
        setup->params.key_lengths = batch_integers(setup, keys / 2, keys);
    }
}

static void set_mask(sdpa_setup *setup, enum masks masks) {
    const int64_t shape[] = {setup->sizes.heads, setup->sizes.rows, setup->sizes.keys};
    if (masks == BOOL_MASK) {
        attn_tensor *mask =
            pool_input(&setup->pool, ATTN_DTYPE_BOOL, 2, shape + 1, LAYOUT_CONTIGUOUS);
        random_fill_bool(mask, &setup->random, 0.3);
        setup->params.mask = mask;
        setup->params.mask_kind = ATTN_MASK_BOOL_INCLUDE;
    } else if (masks == ADDITIVE_MASK) {
        const int64_t per_head[] = {shape[0], 1, shape[2]};
        attn_tensor *mask =
            pool_input(&setup->pool, ATTN_DTYPE_FLOAT32, 3, per_head, LAYOUT_TRANSPOSED);
        random_fill(mask, &setup->random, -2, 2, 0);
        setup->params.mask = mask;
        setup->params.mask_kind = ATTN_MASK_ADDITIVE;
    }
}

static void set_weights(sdpa_setup *setup, enum weights weights) {
    const sdpa_sizes *s = &setup->sizes;
    if (weights == NO_WEIGHTS) {
        setup->params.weights = NULL;
    } else if (weights == AVERAGED) {
        setup->weights =
            pool_output(&setup->pool, ATTN_DTYPE_FLOAT32, 3,
                        (const int64_t[]){s->batch, s->rows, s->keys}, LAYOUT_CONTIGUOUS);
        setup->params.weights = setup->weights;
    }
}

static void create_call(sdpa_setup *setup, const factor_case *chosen) {
    const int64_t *lengths = sizes[chosen->level[SIZES]];
    const int64_t *of_heads = heads[chosen->level[HEADS]];
    /* Columns of values that are whole vectors, and not. */
    const int64_t value_features = chosen->level[MASKS] == NO_MASK ? 16 : 20;
    const sdpa_sizes s = {ATTN_DTYPE_FLOAT32, 2,          of_heads[0], of_heads[1],
                          lengths[0],         lengths[1], 16,          value_features};
    sdpa_setup_create(setup, &s, 211);
    set_positions(setup, chosen->level[POSITIONS]);
    set_mask(setup, chosen->level[MASKS]);
    set_weights(setup, chosen->level[WEIGHTS]);
}

/* The bytes of the outputs, which are contiguous. */
typedef struct kept_bytes {
    const attn_tensor *tensor[3];
    void *bytes[3];
} kept_bytes;

static size_t bytes_of(const attn_tensor *tensor) {
    return (size_t)oracle_count(tensor->rank, tensor->shape) * sizeof(float);
}

static kept_bytes keep(const sdpa_setup *setup) {
    kept_bytes kept = {.tensor = {setup->output, setup->lse, setup->params.weights}};
    for (int i = 0; i < 3; ++i) {
        if (kept.tensor[i] != NULL) {
            kept.bytes[i] = oracle_allocate((int64_t)bytes_of(kept.tensor[i]), 1);
            memcpy(kept.bytes[i], kept.tensor[i]->data, bytes_of(kept.tensor[i]));
            memset(kept.tensor[i]->data, 0x33, bytes_of(kept.tensor[i]));
        }
    }
    return kept;
}

static int is_kept(const kept_bytes *kept) {
    int same = 1;
    for (int i = 0; i < 3; ++i) {
        same &= kept->tensor[i] == NULL ||
                memcmp(kept->bytes[i], kept->tensor[i]->data, bytes_of(kept->tensor[i])) == 0;
    }
    return same;
}

static void run_case(attn_context **contexts, const factor_set *set, const factor_case *chosen,
                     int64_t most_scores) {
    static sdpa_setup setup;
    const int64_t *lengths = sizes[chosen->level[SIZES]];
    if (lengths[0] * lengths[1] > most_scores) {
        return;
    }
    create_call(&setup, chosen);
    sdpa_setup_run(contexts[0], &setup);
    kept_bytes kept = keep(&setup);
    for (int c = 1; c < NUM_CONTEXTS; ++c) {
        sdpa_setup_run(contexts[c], &setup);
        if (!is_kept(&kept)) {
            char options[300];
            describe_case(set, chosen, options, sizeof options);
            fail_msg("context %d has other bits than one thread: %s", c, options);
        }
    }
    for (int i = 0; i < 3; ++i) {
        free(kept.bytes[i]);
    }
    sdpa_setup_destroy(&setup);
}

/* The case of a number in the product of all levels; 0 past the last. */
static int case_at(const factor_set *set, int64_t number, factor_case *chosen) {
    for (int f = 0; f < set->count; ++f) {
        chosen->level[f] = (uint8_t)(number % set->factors[f].num_levels);
        number /= set->factors[f].num_levels;
    }
    return number == 0;
}

static void run_cases(attn_context **contexts, int64_t most_scores) {
    const factor_set set = bits_factors();
    if (is_full) {
        factor_case chosen = {0};
        for (int64_t number = 0; case_at(&set, number, &chosen); ++number) {
            run_case(contexts, &set, &chosen, most_scores);
        }
        return;
    }
    covering_array array = covering_array_create(&set, 7);
    assert_int_equal(array.count.num_missing, 0);
    for (int64_t i = 0; i < array.num_cases; ++i) {
        run_case(contexts, &set, &array.cases[i], most_scores);
    }
    covering_array_destroy(&array);
}

/* Calls of at most so many scores for a head. Fails if calls were too small to be shared out. */
static void run_engine(int32_t engine, const char *kernels, int64_t most_scores) {
    attn_context *contexts[NUM_CONTEXTS];
    caller_pool pool = {0};
    create_contexts(contexts, engine, kernels, &pool);
    run_cases(contexts, most_scores);
    print_message("%s: %lld calls shared out, %lld tasks\n", kernels, (long long)pool.num_calls,
                  (long long)pool.num_tasks);
    assert_true(pool.num_calls > 20 && pool.num_tasks > 2 * pool.num_calls);
    for (int c = 0; c < NUM_CONTEXTS; ++c) {
        attn_context_destroy(contexts[c]);
    }
}

static void fused_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
        run_engine(ATTN_ENGINE_FUSED, attn_kernels_name(kernels), INT64_MAX);
    }
}

/* Whose native product takes its time. */
static void blas_engine_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    run_engine(ATTN_ENGINE_BLAS, attn_kernels_name(0), is_full ? INT64_MAX : 80000);
}

int main(int argc, char **argv) {
    is_full = argc > 1 && strcmp(argv[1], "--full") == 0;
    if (argc > 1 && !is_full) {
        print_error("usage: test_bits_products [--full]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_bits_do_not_depend_on_threads),
        cmocka_unit_test(blas_engine_bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests_name("bits_products", tests, NULL, NULL);
}
