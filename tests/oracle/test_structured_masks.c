/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_structured_masks.c: masks that hide whole tiles, beside all other options, by every set of
 * kernels: against the float64 oracle, and against the same call by kernels that see nothing in a
 * mask, so that everything is computed and edited. Rows in lanes have the same bits then.
 *
 *     test_structured_masks [first seed] [number of calls]
 *
 * A call depends on its seed alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "context/context.h"
#include "property_setup.h"
#include "structured_mask.h"
#include "support/oracle_tensor.h"

enum { STREAM_ROWS = 4 /* so many rows of a group are not in lanes */ };

static uint64_t first_seed = 1;
static int64_t num_calls = 150;

/* ---- kernels ---- */

static attni_mask_sight see_all(int64_t num_keys) {
    return (attni_mask_sight){.end = num_keys, .changed_end = num_keys};
}

static attni_mask_sight blind_to_flags(const unsigned char *const *rows, int32_t num_rows,
                                       int64_t num_keys, bool hidden_if) {
    (void)rows, (void)num_rows, (void)hidden_if;
    return see_all(num_keys);
}

static attni_mask_sight blind_to_biases(const float *const *rows, int32_t num_rows,
                                        int64_t num_keys) {
    (void)rows, (void)num_rows;
    return see_all(num_keys);
}

static int64_t first_flag(const unsigned char *row, int64_t stride, int64_t num_keys,
                          bool hidden_if) {
    (void)row, (void)stride, (void)num_keys, (void)hidden_if;
    return 0;
}

static int64_t past_flags(const unsigned char *row, int64_t stride, int64_t num_keys,
                          bool hidden_if) {
    (void)row, (void)stride, (void)hidden_if;
    return num_keys;
}

static int64_t first_bias(const float *row, int64_t stride, int64_t num_keys) {
    (void)row, (void)stride, (void)num_keys;
    return 0;
}

static int64_t past_biases(const float *row, int64_t stride, int64_t num_keys) {
    (void)row, (void)stride;
    return num_keys;
}

static const attni_mask_kernels blind = {blind_to_flags, blind_to_biases, first_flag,
                                         past_flags,     first_bias,      past_biases};

static attni_kernel_set kernels;

const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context);
const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context) {
    (void)context;
    return &kernels;
}

/* ---- calls ---- */

static int one_in(random_state *random, int64_t n) {
    return random_between(random, 0, n - 1) == 0;
}

/* Few rows and many, and sizes of a key and a value that give short tiles and long ones. */
static sdpa_sizes draw_short(random_state *random) {
    static const int64_t features[][2] = {{8, 8}, {33, 40}, {64, 64}, {160, 192}};
    static const int64_t heads[][2] = {{1, 1}, {2, 2}, {4, 2}, {3, 1}, {3, 3}};
    const int64_t *size = features[random_between(random, 0, 3)];
    const int64_t *head = heads[random_between(random, 0, 4)];
    return (sdpa_sizes){
        .batch = random_between(random, 1, 3),
        .heads = head[0],
        .kv_heads = head[1],
        .rows = one_in(random, 3) ? random_between(random, 1, 4) : length_at_border(random, 150),
        .keys = length_at_border(random, 800),
        .features = size[0],
        .value_features = size[1],
    };
}

/* Several chunks of keys: few heads, so that each is an item of its own, or so many that each item
 * has all of them. */
static sdpa_sizes draw_long(random_state *random) {
    const int has_many_heads = one_in(random, 2);
    return (sdpa_sizes){
        .batch = has_many_heads ? 2 : 1,
        .heads = has_many_heads ? 16 : 2,
        .kv_heads = has_many_heads ? 16 : random_between(random, 1, 2),
        .rows = random_between(random, 1, has_many_heads ? 12 : 60),
        .keys = random_between(random, 2000, 4400),
        .features = 16,
        .value_features = 16,
    };
}

static attn_tensor *batch_integers(sdpa_setup *setup, int64_t lowest, int64_t highest) {
    attn_tensor *tensor =
        pool_input(&setup->pool, ATTN_DTYPE_INT64, 1, &setup->sizes.batch, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < setup->sizes.batch; ++b) {
        oracle_store_integer(tensor, &b, random_between(&setup->random, lowest, highest));
    }
    return tensor;
}

static attn_tensor *head_numbers(sdpa_setup *setup, double lowest, double highest) {
    attn_tensor *tensor =
        pool_input(&setup->pool, ATTN_DTYPE_FLOAT32, 1, &setup->sizes.heads, LAYOUT_CONTIGUOUS);
    random_fill(tensor, &setup->random, lowest, highest, 0);
    return tensor;
}

static void draw_positions(sdpa_setup *setup) {
    random_state *random = &setup->random;
    setup->params.is_causal = one_in(random, 4);
    if (one_in(random, 5)) {
        setup->params.set |= ATTN_SDPA_SET_WINDOW;
        setup->params.window_left = random_between(random, -1, 300);
        setup->params.window_right = random_between(random, -1, 60);
    }
    setup->params.key_lengths =
        one_in(random, 4) ? batch_integers(setup, 0, setup->sizes.keys) : NULL;
    setup->params.query_offset =
        one_in(random, 3) ? batch_integers(setup, -20, setup->sizes.keys) : NULL;
    if (one_in(random, 8)) { /* too far for float32 to tell neighbours apart */
        setup->params.query_offset = batch_integers(setup, 1 << 25, 1 << 26);
    }
}

static void draw_scores(sdpa_setup *setup) {
    random_state *random = &setup->random;
    attn_sdpa_params *params = &setup->params;
    params->softcap = one_in(random, 5) ? 3 : 0;
    params->alibi_slopes = one_in(random, 5) ? head_numbers(setup, -0.1, 0.2) : NULL;
    if (one_in(random, 4)) {
        params->normalizer = one_in(random, 2) ? ATTN_NORMALIZER_SIGMOID : ATTN_NORMALIZER_LINEAR;
        params->lse = NULL;
    } else {
        params->sinks = one_in(random, 4) ? head_numbers(setup, -4, 4) : NULL;
    }
}

static void draw_masks(sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t scores[] = {s->batch, s->heads, s->rows, s->keys};
    random_state *random = &setup->random;
    const int with_bias = one_in(random, 3);
    const int32_t kind =
        (int32_t)random_between(random, with_bias ? ATTN_MASK_NONE : 1, ATTN_MASK_BOOL_EXCLUDE);
    setup->params.mask_kind = kind;
    setup->params.mask = kind == ATTN_MASK_NONE
                             ? NULL
                             : structured_mask(&setup->pool, random, kind, s->dtype, scores);
    setup->params.bias =
        with_bias ? structured_mask(&setup->pool, random, ATTN_MASK_ADDITIVE, s->dtype, scores)
                  : NULL;
}

static void draw_call(sdpa_setup *setup, uint64_t seed) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16,
                                     ATTN_DTYPE_FLOAT16};
    random_state random = random_seeded(seed);
    sdpa_sizes sizes = one_in(&random, 5) ? draw_long(&random) : draw_short(&random);
    sizes.dtype = dtypes[random_between(&random, 0, 3)];
    sdpa_setup_create(setup, &sizes, random_bits(&random));
    setup->params.weights = one_in(&setup->random, 4) ? setup->weights : NULL;
    draw_positions(setup);
    draw_scores(setup);
    draw_masks(setup);
}

/* ---- comparisons ---- */

typedef struct outputs {
    attn_tensor *output, *lse;
} outputs;

static outputs take_outputs(sdpa_setup *setup) {
    const outputs taken = {
        pool_output(&setup->pool, setup->sizes.dtype, 4, setup->output->shape, LAYOUT_CONTIGUOUS),
        pool_output(&setup->pool, ATTN_DTYPE_FLOAT32, 3, setup->lse->shape, LAYOUT_CONTIGUOUS)};
    return taken;
}

static outputs run(attn_context *context, sdpa_setup *setup, const attni_kernel_set *set,
                   const attni_mask_kernels *masks) {
    const outputs taken = take_outputs(setup);
    kernels = *set;
    kernels.masks = masks;
    setup->output = taken.output;
    setup->params.lse = setup->params.lse == NULL ? NULL : taken.lse;
    pool_begin(&setup->pool);
    sdpa_setup_run(context, setup);
    return taken;
}

static int differs(const char *name, const attn_tensor *actual, const oracle_array *expected,
                   compare_stats *stats, char *message, size_t bytes) {
    return compare_tensor(name, actual, expected, stats, message, bytes);
}

static int check_set(attn_context *context, sdpa_setup *setup, const oracle_result *expected,
                     const attni_kernel_set *set, compare_stats *stats, char *message,
                     size_t bytes) {
    const sdpa_sizes *s = &setup->sizes;
    const int in_lanes = s->heads / s->kv_heads * s->rows > STREAM_ROWS;
    const outputs looked = run(context, setup, set, set->masks);
    const int is_wrong =
        pool_check(&setup->pool, message, bytes) ||
        differs("output", looked.output, &expected->output, stats, message, bytes) ||
        (setup->params.lse != NULL &&
         differs("lse", looked.lse, &expected->lse, stats, message, bytes)) ||
        (setup->params.weights != NULL &&
         differs("weights", setup->weights, &expected->weights, stats, message, bytes));
    const outputs blindly = run(context, setup, set, &blind);
    return is_wrong ||
           differs("output, blindly", blindly.output, &expected->output, stats, message, bytes) ||
           (in_lanes &&
            (compare_same_bits("output", looked.output, blindly.output, message, bytes) ||
             (setup->params.lse != NULL &&
              compare_same_bits("lse", looked.lse, blindly.lse, message, bytes))));
}

/* What sets of kernels may compute: those that multiply pairs of bfloat16 round weights. */
enum { BY_FLOAT32, BY_PAIRS, NUM_WAYS };

static int run_set(attn_context *context, uint64_t seed, sdpa_setup *setup,
                   const oracle_result *expected, const attni_kernel_set *set,
                   compare_stats *stats) {
    const sdpa_sizes *s = &setup->sizes;
    char message[400];
    if (!check_set(context, setup, expected, set, stats, message, sizeof message)) {
        return 0;
    }
    printf("seed %llu, %s, dtype %d: (%lld, %lld/%lld, %lldx%lld, %lld/%lld): %s\n",
           (unsigned long long)seed, set->name, (int)s->dtype, (long long)s->batch,
           (long long)s->heads, (long long)s->kv_heads, (long long)s->rows, (long long)s->keys,
           (long long)s->features, (long long)s->value_features, message);
    return 1;
}

static int run_call(attn_context *context, uint64_t seed, compare_stats *stats) {
    static sdpa_setup setup;
    const attni_kernel_set *set;
    oracle_result expected[NUM_WAYS];
    bool is_known[NUM_WAYS] = {false};
    int failures = 0;
    draw_call(&setup, seed);
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        const int way =
            set->pairs != NULL && setup.sizes.dtype == ATTN_DTYPE_BFLOAT16 ? BY_PAIRS : BY_FLOAT32;
        if (!is_known[way]) {
            expected[way] = sdpa_setup_expect_of(&setup, set->name);
            is_known[way] = true;
        }
        failures += run_set(context, seed, &setup, &expected[way], set, stats);
    }
    for (int way = 0; way < NUM_WAYS; ++way) {
        if (is_known[way]) {
            oracle_result_destroy(&expected[way]);
        }
    }
    sdpa_setup_destroy(&setup);
    return failures;
}

static attn_context *context_of(int32_t num_threads) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = num_threads, .engine = ATTN_ENGINE_FUSED};
    attn_context *context;
    kernels = *attni_kernel_set_at(0);
    assert_ok(attn_context_create(&config, &context));
    return context;
}

static void what_masks_hide_whole_changes_no_bit(void **state) {
    (void)state;
    attn_context *const contexts[] = {context_of(1), context_of(2)};
    compare_stats stats = {0};
    int failures = 0;
    printf("%lld calls from seed %llu\n", (long long)num_calls, (unsigned long long)first_seed);
    for (int64_t i = 0; i < num_calls; ++i) {
        failures += run_call(contexts[i % 2], first_seed + (uint64_t)i, &stats);
    }
    attn_context_destroy(contexts[0]);
    attn_context_destroy(contexts[1]);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv) {
    first_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : first_seed;
    num_calls = argc > 2 ? strtoll(argv[2], NULL, 10) : num_calls;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_masks_hide_whole_changes_no_bit),
    };
    return cmocka_run_group_tests_name("structured masks", tests, NULL, NULL);
}
