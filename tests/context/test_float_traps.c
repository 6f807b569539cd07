/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_float_traps.c: a host that lets floating-point exceptions trap. Every kind of call, those with
 * rows that see nothing, empty sums, infinities and NaN among them, gives the bits it gives without
 * traps, on every thread that computes for it, and leaves the host's floating-point environment as it
 * was: what traps, what has been raised, and how it rounds. An exception that traps ends the program.
 */
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mixed_calls.h"

enum { TRAPS = FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW };

static mixed_calls calls;

/* ---- the host's environment ---- */

/* What a host can see of it. */
typedef struct float_environment {
    int traps;
    int raised;
    int rounding;
} float_environment;

static float_environment environment_now(void) {
    return (float_environment){fegetexcept(), fetestexcept(FE_ALL_EXCEPT), fegetround()};
}

/* Enables traps, with flags raised that must stay; FE_INEXACT is not among those that trap. */
static float_environment enter(void) {
    fesetround(FE_UPWARD);
    feraiseexcept(FE_INEXACT);
    feenableexcept(TRAPS);
    return environment_now();
}

static bool leave(float_environment before) {
    const float_environment after = environment_now();
    fesetenv(FE_DFL_ENV);
    return after.traps == before.traps && after.raised == before.raised &&
           after.rounding == before.rounding;
}

/* The same rounding without traps. */
static void enter_without_traps(void) {
    fesetround(FE_UPWARD);
}

/* Whether this CPU traps at all: most of 64-bit ARM, and emulators, do not. */
static bool has_traps(void) {
    feenableexcept(TRAPS);
    const bool has = fegetexcept() == TRAPS;
    fesetenv(FE_DFL_ENV);
    return has;
}

/* ---- a caller's pool, on whose threads exceptions trap ---- */

typedef struct pool_part {
    attn_task_fn task;
    void *data;
    int64_t first, count;
    bool is_unchanged;
} pool_part;

static void *run_part(void *argument) {
    pool_part *part = argument;
    const float_environment before = enter();
    for (int64_t i = part->first; i < part->count; i += 2) {
        part->task(part->data, i);
    }
    part->is_unchanged = leave(before);
    return NULL;
}

/* Two threads of its own; *state counts those whose environment was changed. */
static int32_t trapping_parallel_for(void *state, int64_t count, attn_task_fn task, void *data) {
    pool_part parts[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; ++i) {
        parts[i] = (pool_part){task, data, i, count, false};
        if (pthread_create(&threads[i], NULL, run_part, &parts[i]) != 0) {
            abort();
        }
    }
    for (int i = 0; i < 2; ++i) {
        pthread_join(threads[i], NULL);
        *(int *)state += !parts[i].is_unchanged;
    }
    return 0;
}

enum pool { ALONE, OWN_THREADS, CALLERS_POOL, NUM_POOLS };

static attn_context *context_of(enum pool pool, int32_t engine, int32_t gemm, int *num_changed) {
    attn_context_config config = {.struct_size = sizeof config, .engine = engine, .gemm = gemm};
    config.num_threads = pool == ALONE ? 1 : pool == OWN_THREADS ? 3 : 0;
    if (pool == CALLERS_POOL) {
        config.parallel_for = trapping_parallel_for;
        config.parallel_for_state = num_changed;
        config.parallel_for_width = 2;
    }
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

/* ---- calls at the edges ---- */

enum { HEADS = 2, ROWS = 70, KEYS = 90, COLS = 16, MOST_VALUES = HEADS * ROWS * KEYS };

typedef struct edge_call {
    const char *name;
    int64_t keys, cols;
    double query, value; /* of every element */
    double mask;         /* of every key but the first of odd rows; 0: none */
    int32_t normalizer;
    double softcap, sink;   /* 0: none */
    bool has_empty_lengths; /* of all batches */
} edge_call;

static const edge_call edge_calls[] = {
    {.name = "rows that see nothing",
     .keys = KEYS,
     .cols = COLS,
     .query = 1,
     .value = 1,
     .mask = -INFINITY},
    {.name = "no keys", .keys = 0, .cols = COLS, .query = 1, .value = 1},
    {.name = "no features", .keys = KEYS, .cols = 0, .query = 1, .value = 1},
    {.name = "lengths of 0",
     .keys = KEYS,
     .cols = COLS,
     .query = 1,
     .value = 1,
     .has_empty_lengths = true},
    {.name = "scores that overflow", .keys = KEYS, .cols = COLS, .query = 1e30, .value = 1},
    {.name = "infinite queries", .keys = KEYS, .cols = COLS, .query = INFINITY, .value = 1},
    {.name = "NaN values", .keys = KEYS, .cols = COLS, .query = 1, .value = NAN},
    {.name = "infinite values",
     .keys = KEYS,
     .cols = COLS,
     .query = 1,
     .value = INFINITY,
     .mask = -INFINITY},
    {.name = "largest values",
     .keys = KEYS,
     .cols = COLS,
     .query = 1,
     .value = 3e38,
     .mask = -3e38},
    {.name = "softcap",
     .keys = KEYS,
     .cols = COLS,
     .query = 1e30,
     .value = 1,
     .softcap = 2,
     .mask = -INFINITY},
    {.name = "sinks",
     .keys = KEYS,
     .cols = COLS,
     .query = 1,
     .value = 1,
     .sink = 800,
     .mask = -INFINITY},
    {.name = "sinks of minus infinity",
     .keys = KEYS,
     .cols = COLS,
     .query = 1,
     .value = 1,
     .sink = -INFINITY,
     .mask = -INFINITY},
    {.name = "sigmoid",
     .keys = KEYS,
     .cols = COLS,
     .query = -1e30,
     .value = 1,
     .normalizer = ATTN_NORMALIZER_SIGMOID,
     .mask = -INFINITY},
    {.name = "linear",
     .keys = KEYS,
     .cols = COLS,
     .query = 1e30,
     .value = 1e30,
     .normalizer = ATTN_NORMALIZER_LINEAR},
};
enum { NUM_EDGE_CALLS = sizeof edge_calls / sizeof edge_calls[0] };

/* Everything a call reads and writes, made before exceptions trap. */
typedef struct edge_memory {
    double query[MOST_VALUES], value[MOST_VALUES], mask[ROWS * KEYS], sinks[HEADS];
    double out[MOST_VALUES], lse[HEADS * ROWS], weights[HEADS * ROWS * KEYS];
    int64_t length;
} edge_memory;

static void fill(double *memory, int32_t dtype, int64_t count, double value) {
    for (int64_t i = 0; i < count; ++i) {
        if (dtype == ATTN_DTYPE_FLOAT64) {
            memory[i] = value;
        } else {
            ((float *)memory)[i] = (float)value;
        }
    }
}

static void put(double *memory, int32_t dtype, int64_t at, double value) {
    fill(dtype == ATTN_DTYPE_FLOAT64 ? memory + at : (double *)(void *)((float *)memory + at),
         dtype, 1, value);
}

static void fill_edge(edge_memory *memory, const edge_call *call, int32_t dtype) {
    memset(memory, 0, sizeof *memory);
    fill(memory->query, dtype, HEADS * KEYS * COLS, call->query);
    fill(memory->value, dtype, HEADS * KEYS * COLS, call->value);
    fill(memory->mask, dtype, ROWS * KEYS, call->mask);
    fill(memory->sinks, dtype, HEADS, call->sink);
    for (int64_t row = 1; row < ROWS; row += 2) {
        put(memory->mask, dtype, row * KEYS, 0);
    }
}

static attn_tensor view_of(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view = {0};
    if (attn_tensor_init(&view, data, dtype, rank, shape) != ATTN_OK) {
        abort();
    }
    return view;
}

static attn_status run_edge(edge_memory *memory, const edge_call *call, int32_t dtype,
                            attn_context *context) {
    const attn_tensor query =
        view_of(memory->query, dtype, 3, (int64_t[]){HEADS, ROWS, call->cols});
    const attn_tensor key =
        view_of(memory->query, dtype, 3, (int64_t[]){HEADS, call->keys, call->cols});
    const attn_tensor value =
        view_of(memory->value, dtype, 3, (int64_t[]){HEADS, call->keys, COLS});
    const attn_tensor out = view_of(memory->out, dtype, 3, (int64_t[]){HEADS, ROWS, COLS});
    const attn_tensor lse = view_of(memory->lse, dtype, 2, (int64_t[]){HEADS, ROWS});
    const attn_tensor weights =
        view_of(memory->weights, dtype, 3, (int64_t[]){HEADS, ROWS, call->keys});
    const attn_tensor mask = view_of(memory->mask, dtype, 2, (int64_t[]){ROWS, call->keys});
    const attn_tensor sinks = view_of(memory->sinks, dtype, 1, (int64_t[]){HEADS});
    const attn_tensor lengths = view_of(&memory->length, ATTN_DTYPE_INT64, 0, NULL);
    const bool is_softmax = call->normalizer == ATTN_NORMALIZER_SOFTMAX;
    const attn_sdpa_params params = {
        .struct_size = sizeof params,
        .mask = call->mask != 0 ? &mask : NULL,
        .mask_kind = call->mask != 0 ? ATTN_MASK_ADDITIVE : ATTN_MASK_NONE,
        .normalizer = call->normalizer,
        .softcap = call->softcap,
        .sinks = call->sink != 0 ? &sinks : NULL,
        .key_lengths = call->has_empty_lengths ? &lengths : NULL,
        .lse = is_softmax ? &lse : NULL,
        .weights = &weights,
    };
    size_t bytes;
    attn_sdpa_report report = {.struct_size = sizeof report};
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    attn_status status =
        attn_sdpa_workspace_bytes(context, &query, &key, &value, &params, &out, &bytes);
    status = status != ATTN_OK
                 ? status
                 : attn_sdpa_explain(context, &query, &key, &value, &params, &out, &report);
    status = status != ATTN_OK
                 ? status
                 : attn_sdpa_describe_outputs(&query, &key, &value, &params, &outputs);
    return status != ATTN_OK ? status
                             : attn_sdpa(context, &query, &key, &value, &params, &out, NULL, 0);
}

/* The mask's rows as scores. */
static attn_status run_edge_softmax(edge_memory *memory, int32_t dtype, attn_context *context) {
    const int64_t shape[] = {ROWS, KEYS};
    const int64_t lse_shape[] = {ROWS};
    const attn_tensor in = view_of(memory->mask, dtype, 2, shape);
    const attn_tensor out = view_of(memory->out, dtype, 2, shape);
    const attn_tensor lse = view_of(memory->lse, dtype, 1, lse_shape);
    const attn_softmax_params params = {.struct_size = sizeof params, .lse = &lse};
    return attn_softmax(context, &in, &params, &out, NULL, 0);
}

/* Two columns of the mask as the logits of two parts. */
static attn_status run_edge_merge(edge_memory *memory, int32_t dtype, attn_context *context) {
    const int64_t shape[] = {ROWS, COLS};
    attn_tensor outputs[2], lses[2];
    for (int part = 0; part < 2; ++part) {
        char *logits = (char *)memory->mask + part * (int)attn_dtype_size_bytes(dtype);
        outputs[part] = view_of(memory->value, dtype, 2, shape);
        lses[part] = view_of(logits, dtype, 1, shape);
        lses[part].strides[0] = KEYS;
    }
    const attn_tensor out = view_of(memory->out, dtype, 2, shape);
    const attn_tensor lse = view_of(memory->lse, dtype, 1, shape);
    const attn_tensor sinks = view_of(memory->sinks, dtype, 1, (int64_t[]){1});
    const attn_merge_params params = {.struct_size = sizeof params, .sinks = &sinks};
    return attn_sdpa_merge(context, 2, outputs, lses, &params, &out, &lse);
}

/* The functions that meet the edges. */
enum edge_function { EDGE_SDPA, EDGE_SOFTMAX, EDGE_MERGE, NUM_EDGE_FUNCTIONS };

static attn_status run_function(enum edge_function function, edge_memory *memory,
                                const edge_call *call, int32_t dtype, attn_context *context) {
    switch (function) {
    case EDGE_SDPA:
        return run_edge(memory, call, dtype, context);
    case EDGE_SOFTMAX:
        return run_edge_softmax(memory, dtype, context);
    default:
        return run_edge_merge(memory, dtype, context);
    }
}

static bool is_same_result(const edge_memory *a, const edge_memory *b) {
    return memcmp(a->out, b->out, sizeof a->out) == 0 &&
           memcmp(a->lse, b->lse, sizeof a->lse) == 0 &&
           memcmp(a->weights, b->weights, sizeof a->weights) == 0;
}

static void assert_edge(const edge_call *call, int32_t dtype, enum edge_function function,
                        attn_context *context, const int *num_changed) {
    edge_memory *plain = malloc(sizeof *plain);
    edge_memory *trapping = malloc(sizeof *trapping);
    assert_true(plain != NULL && trapping != NULL);
    fill_edge(plain, call, dtype);
    fill_edge(trapping, call, dtype);
    enter_without_traps();
    const attn_status a = run_function(function, plain, call, dtype, context);
    fesetenv(FE_DFL_ENV);
    const float_environment before = enter();
    const attn_status b = run_function(function, trapping, call, dtype, context);
    const bool is_left = leave(before);
    if (a != ATTN_OK || b != ATTN_OK || !is_left || *num_changed != 0 ||
        !is_same_result(plain, trapping)) {
        fail_msg("%s, dtype %d: status %d and %d, environment %s, %d threads changed, bits %s",
                 call->name, (int)dtype, (int)a, (int)b, is_left ? "left" : "changed", *num_changed,
                 is_same_result(plain, trapping) ? "equal" : "different");
    }
    free(plain);
    free(trapping);
}

static void edges_compute_and_leave_the_environment(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_AUTO; engine <= ATTN_ENGINE_BLAS; ++engine) {
        for (enum pool pool = ALONE; pool < NUM_POOLS; ++pool) {
            int num_changed = 0;
            attn_context *context = context_of(pool, engine, ATTN_GEMM_AUTO, &num_changed);
            for (int i = 0; i < NUM_EDGE_CALLS * NUM_EDGE_FUNCTIONS; ++i) {
                const edge_call *call = &edge_calls[i / NUM_EDGE_FUNCTIONS];
                const enum edge_function function = (enum edge_function)(i % NUM_EDGE_FUNCTIONS);
                assert_edge(call, ATTN_DTYPE_FLOAT32, function, context, &num_changed);
                assert_edge(call, ATTN_DTYPE_FLOAT64, function, context, &num_changed);
            }
            attn_context_destroy(context);
        }
    }
}

/* ---- ordinary calls, layers and all ---- */

static void ordinary_calls_give_the_same_bits(void **state) {
    (void)state;
    char *plain = malloc(MIXED_MOST_BYTES);
    char *trapping = malloc(MIXED_MOST_BYTES);
    assert_true(plain != NULL && trapping != NULL);
    for (enum pool pool = ALONE; pool < NUM_POOLS; ++pool) {
        int num_changed = 0;
        attn_context *context = context_of(pool, ATTN_ENGINE_AUTO, ATTN_GEMM_NATIVE, &num_changed);
        for (int i = 0; i < mixed_calls_count(); ++i) {
            memset(plain, 0, MIXED_MOST_BYTES);
            memset(trapping, 0, MIXED_MOST_BYTES);
            enter_without_traps();
            const attn_status a = mixed_call_run(&calls, context, calls.layer, i, plain);
            fesetenv(FE_DFL_ENV);
            const float_environment before = enter();
            const attn_status b = mixed_call_run(&calls, context, calls.layer, i, trapping);
            assert_true(leave(before));
            assert_int_equal(a, ATTN_OK);
            assert_int_equal(b, ATTN_OK);
            assert_memory_equal(plain, trapping, MIXED_MOST_BYTES);
            assert_int_equal(num_changed, 0);
        }
        attn_context_destroy(context);
    }
    free(plain);
    free(trapping);
}

/* ---- the other functions that calculate ---- */

static void layers_are_made_and_the_selftest_passes(void **state) {
    (void)state;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = MIXED_EMBED,
                                    .num_heads = MIXED_HEADS,
                                    .dtype = ATTN_DTYPE_FLOAT32};
    double values[MIXED_EMBED];
    const int64_t shape[] = {MIXED_EMBED};
    for (int i = 0; i < MIXED_EMBED; ++i) {
        values[i] = i % 2 == 0 ? 1e300 : (double)NAN; /* neither is a float32 */
    }
    const attn_tensor bias = view_of(values, ATTN_DTYPE_FLOAT64, 1, shape);
    attn_mha *layer = NULL;
    const float_environment before = enter();
    const attn_status made = attn_mha_create(NULL, &config, &layer);
    const attn_status filled = made != ATTN_OK ? made : attn_mha_init_parameters(NULL, layer, NULL);
    const attn_status loaded =
        filled != ATTN_OK ? filled
                          : attn_mha_load_parameter(NULL, layer, "out_proj.bias", &bias, NULL);
    const attn_status tested = attn_selftest(NULL, NULL);
    const bool is_left = leave(before);
    attn_mha_destroy(layer);
    assert_int_equal(loaded, ATTN_OK);
    assert_int_equal(tested, ATTN_OK);
    assert_true(is_left);
}

static int prepare(void **state) {
    (void)state;
    mixed_calls_create(&calls);
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    mixed_calls_destroy(&calls);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edges_compute_and_leave_the_environment),
        cmocka_unit_test(ordinary_calls_give_the_same_bits),
        cmocka_unit_test(layers_are_made_and_the_selftest_passes),
    };
    if (!has_traps()) {
        printf("exceptions cannot trap here: the calls are made all the same\n");
    }
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
