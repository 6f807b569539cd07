/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_quantized_keys.c: a call over quantised keys and values has the numbers of attention to what
 * they mean, (element - zero) * scale, within the bounds of a float32 computation of these; the bits
 * of contiguous caches in every place; and those of a call that is given the numbers as float32,
 * unless a row's scale is multiplied with sums instead. Every pair of settings by default, the cases
 * shared by the sets of kernels, and few keys; with --full every case with every set, and pairs
 * chosen otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "quantized_case.h"
#include "support/strength.h"

static int is_full = 0;

/* Long double loops say no more of a few more keys. */
enum { ORACLE_WORK = 1 << 18 };

static void assert_oracle(const quantized_case *built, const char *kernels) {
    const quantized_call *numbers = &built->numbers;
    const attn_tensor *output = numbers->output;
    if (output->shape[1] * output->shape[2] * built->room * 96 > ORACLE_WORK) {
        return;
    }
    oracle_result expected =
        oracle_sdpa(built->query, numbers->key, numbers->value, &numbers->params,
                    oracle_weight_unit(kernels, built->query, numbers->key, numbers->value));
    assert_close("output", built->quantized.output, &expected.output);
    oracle_result_destroy(&expected);
}

/* Whether the results of two calls differ, which the message tells then. */
static int have_other_bits(const quantized_call *call, const quantized_call *other, char *message,
                           size_t bytes) {
    return compare_same_bits("output", call->output, other->output, message, bytes) ||
           (call->weights != NULL &&
            compare_same_bits("weights", call->weights, other->weights, message, bytes)) ||
           (call->scores != NULL &&
            compare_same_bits("scores", call->scores, other->scores, message, bytes));
}

static void run_case(attn_context *context, const char *kernels, const factor_set *set,
                     const factor_case *chosen, uint64_t seed) {
    static quantized_case built;
    char message[200], options[500];
    quantized_case_build(&built, chosen, seed);
    describe_case(set, chosen, options, sizeof options);
    pool_begin(&built.pool);
    quantized_call *call = &built.quantized, *plain = &built.plain, *numbers = &built.numbers;
    if (attn_sdpa(context, built.query, NULL, NULL, &call->params, call->output, NULL, 0) !=
        ATTN_OK) {
        fail_msg("%s: %s", attn_last_error(), options);
    }
    assert_ok(attn_sdpa(context, built.query, NULL, NULL, &plain->params, plain->output, NULL, 0));
    assert_ok(attn_sdpa(context, built.query, numbers->key, numbers->value, &numbers->params,
                        numbers->output, NULL, 0));
    if (pool_check(&built.pool, message, sizeof message) != 0 ||
        have_other_bits(call, plain, message, sizeof message) ||
        (!quantized_may_fold(&built) && have_other_bits(call, numbers, message, sizeof message))) {
        fail_msg("%s: %s: %s", kernels, message, options);
    }
    assert_oracle(&built, kernels);
    quantized_case_destroy(&built);
}

/* With the set of kernels `number` of num_sets. */
static void run_cases(int32_t number, int32_t num_sets, uint64_t seed) {
    const factor_set set = quantized_factor_set(is_full);
    const char *kernels = attn_kernels_name(number);
    attn_context *contexts[2];
    for (int c = 0; c < 2; ++c) {
        const attn_context_config config = {.struct_size = sizeof config,
                                            .num_threads = 2,
                                            .engine = c == 0 ? ATTN_ENGINE_FUSED : ATTN_ENGINE_BLAS,
                                            .gemm = ATTN_GEMM_NATIVE,
                                            .kernels = kernels};
        assert_ok(attn_context_create(&config, &contexts[c]));
    }
    covering_array array = covering_array_create(&set, seed);
    assert_int_equal(array.count.num_missing, 0);
    for (int64_t i = is_full ? 0 : number; i < array.num_cases; i += is_full ? 1 : num_sets) {
        run_case(contexts[array.cases[i].level[QUANTIZED_ENGINE] == 2], kernels, &set,
                 &array.cases[i], seed + (uint64_t)i);
    }
    print_message("%s: of %lld cases, %d settings, strength %d\n", kernels,
                  (long long)array.num_cases, set.count, test_strength());
    covering_array_destroy(&array);
    attn_context_destroy(contexts[0]);
    attn_context_destroy(contexts[1]);
}

static void quantized_keys_are_the_numbers_they_mean(void **state) {
    (void)state;
    int32_t num_sets = 0;
    while (attn_kernels_name(num_sets) != NULL) {
        ++num_sets;
    }
    for (int32_t i = 0; i < num_sets; ++i) {
        for (uint64_t seed = 1; seed <= (is_full ? 12 : 1); ++seed) {
            run_cases(i, num_sets, 1000 * seed);
        }
    }
}

/* Sequences of 2, 1, 1 and 5 query rows, which run as three calls, have the bits that each has
 * alone: its own scales with it. */
static void ragged_queries_meet_the_scales_of_their_sequences(void **state) {
    enum { B = 4, H = 2, C = 24, E = 32, TOTAL = 9 };
    static const int64_t starts[B + 1] = {0, 2, 3, 4, TOTAL};
    static float query[H][TOTAL][E], output[H][TOTAL][E], alone[H][5][E];
    static signed char keys[B][H][C][E];
    static float scales[B / 2][H][C];
    (void)state;
    random_state random = random_seeded(1);
    for (int64_t i = 0; i < H * TOTAL * E; ++i) {
        ((float *)query)[i] = (float)random_real(&random, -1, 1);
    }
    for (int64_t i = 0; i < B * H * C * E; ++i) {
        ((signed char *)keys)[i] = (signed char)random_between(&random, -127, 127);
    }
    for (int64_t i = 0; i < B / 2 * H * C; ++i) {
        ((float *)scales)[i] = (float)random_real(&random, 0, 0.02); /* of two sequences each */
    }
    attn_tensor queries, outputs, key, scale, bounds;
    assert_ok(attn_tensor_init(&queries, query, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){H, TOTAL, E}));
    assert_ok(attn_tensor_init(&outputs, output, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){H, TOTAL, E}));
    assert_ok(attn_tensor_init(&key, keys, ATTN_DTYPE_INT8, 4, (int64_t[]){B, H, C, E}));
    assert_ok(attn_tensor_init(&scale, scales, ATTN_DTYPE_FLOAT32, 4, (int64_t[]){B / 2, H, C, 1}));
    assert_ok(attn_tensor_init(&bounds, (void *)(uintptr_t)starts, ATTN_DTYPE_INT64, 1,
                               (int64_t[]){B + 1}));
    const attn_kv kv = {.struct_size = sizeof kv,
                        .key = &key,
                        .value = &key,
                        .key_scale = &scale,
                        .value_scale = &scale};
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .kv = &kv, .query_starts = &bounds};
    assert_ok(attn_sdpa(NULL, &queries, NULL, NULL, &params, &outputs, NULL, 0));
    for (int64_t b = 0; b < B; ++b) {
        const int64_t rows = starts[b + 1] - starts[b];
        attn_tensor own_query, own_key, own_scale, own_output;
        assert_ok(attn_tensor_slice(&queries, 1, starts[b], rows, 1, &own_query));
        assert_ok(attn_tensor_select(&key, 0, b, &own_key));
        assert_ok(attn_tensor_select(&scale, 0, b / 2, &own_scale));
        assert_ok(
            attn_tensor_init(&own_output, alone, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){H, rows, E}));
        const attn_kv own = {.struct_size = sizeof own,
                             .key = &own_key,
                             .value = &own_key,
                             .key_scale = &own_scale,
                             .value_scale = &own_scale};
        const attn_sdpa_params own_params = {.struct_size = sizeof own_params, .kv = &own};
        assert_ok(attn_sdpa(NULL, &own_query, NULL, NULL, &own_params, &own_output, NULL, 0));
        for (int64_t h = 0; h < H; ++h) {
            assert_memory_equal((float *)alone + h * rows * E, output[h][starts[b]],
                                (size_t)(rows * E) * sizeof(float));
        }
    }
}

int main(int argc, char **argv) {
    is_full = argc > 1 && strcmp(argv[1], "--full") == 0;
    if (argc > 1 && !is_full) {
        print_error("usage: test_quantized_keys [--full]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantized_keys_are_the_numbers_they_mean),
        cmocka_unit_test(ragged_queries_meet_the_scales_of_their_sequences),
    };
    return cmocka_run_group_tests_name("quantized_keys", tests, NULL, NULL);
}
