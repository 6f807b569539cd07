/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_float_environment.c: a host that rounds otherwise, or flushes subnormal numbers to zero, gets
 * results that are as good as its settings allow, the same on any number of threads, and finds its
 * settings as they were after every call.
 */
#include <fenv.h>
#include <float.h>
#include <math.h>
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

/* Roundoffs that results may differ by from those of the default environment, scores and values being
 * of the size of 1: the bound of sdpa.h for 200 keys with 8 u for u, as context.h has it. */
enum { MOST_ROUNDOFFS = 2000 };

static mixed_calls calls;

/* ---- settings ---- */

/* What of the floating-point environment belongs to the host: not the exception flags. */
typedef struct float_settings {
    int rounding;
    uint64_t control; /* MXCSR's or FPCR's */
    uint16_t x87;
} float_settings;

#if defined(__x86_64__)
enum { FLUSH_BITS = 0x8040, MXCSR_FLAGS = 0x3f };

static uint64_t control_word(void) {
    return __builtin_ia32_stmxcsr() & ~(unsigned)MXCSR_FLAGS;
}

static void set_control_word(uint64_t word) {
    __builtin_ia32_ldmxcsr((unsigned)word);
}

static uint16_t x87_word(void) {
    uint16_t word = 0; /* The memory sanitizer does not see assembly write. */
    __asm__ volatile("fnstcw %0" : "=m"(word));
    return word;
}
#elif defined(__aarch64__)
enum { FLUSH_BITS = 1 << 24 };

static uint64_t control_word(void) {
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}

static void set_control_word(uint64_t word) {
    __asm__ volatile("msr fpcr, %0" : : "r"(word));
}

static uint16_t x87_word(void) {
    return 0;
}
#else
enum { FLUSH_BITS = 0 };

static uint64_t control_word(void) {
    return 0;
}

static void set_control_word(uint64_t word) {
    (void)word;
}

static uint16_t x87_word(void) {
    return 0;
}
#endif

static float_settings settings_now(void) {
    return (float_settings){fegetround(), control_word(), x87_word()};
}

static bool are_equal(float_settings a, float_settings b) {
    return a.rounding == b.rounding && a.control == b.control && a.x87 == b.x87;
}

typedef struct environment {
    const char *name;
    int rounding;
    bool flushes;
} environment;

static const environment environments[] = {
    {"to nearest", FE_TONEAREST, false},
    {"upward", FE_UPWARD, false},
    {"downward", FE_DOWNWARD, false},
    {"toward zero", FE_TOWARDZERO, false},
    {"to nearest, flushing", FE_TONEAREST, true},
    {"upward, flushing", FE_UPWARD, true},
};
enum { NUM_ENVIRONMENTS = sizeof environments / sizeof environments[0] };

static float_settings enter(const environment *into) {
    fesetround(into->rounding);
    set_control_word(control_word() | (into->flushes ? FLUSH_BITS : 0));
    return settings_now();
}

static void leave(void) {
    fesetenv(FE_DFL_ENV);
}

/* ---- results ---- */

/* Every call in one environment on one thread and on three; returns the largest error. Nothing is
 * asserted inside, where the test's own arithmetic would be another. */
static double run_all(const environment *in, attn_context *alone, attn_context *together,
                      int *num_different, int *num_changed) {
    char *first = malloc(MIXED_MOST_BYTES);
    char *second = malloc(MIXED_MOST_BYTES);
    assert_true(first != NULL && second != NULL);
    double largest = 0;
    for (int i = 0; i < mixed_calls_count(); ++i) {
        memset(first, 0, MIXED_MOST_BYTES);
        memset(second, 0, MIXED_MOST_BYTES);
        const float_settings before = enter(in);
        const attn_status a = mixed_call_run(&calls, alone, calls.layer, i, first);
        const float_settings between = settings_now();
        const attn_status b = mixed_call_run(&calls, together, calls.layer, i, second);
        const float_settings after = settings_now();
        leave();
        *num_changed += !are_equal(before, between) || !are_equal(before, after);
        *num_different +=
            a != ATTN_OK || b != ATTN_OK || memcmp(first, second, MIXED_MOST_BYTES) != 0;
        largest = fmax(largest, mixed_call_error(&calls, i, first));
    }
    free(first);
    free(second);
    return largest;
}

static void calls_are_bounded_and_leave_the_settings(void **state) {
    (void)state;
    const int32_t engines[] = {ATTN_ENGINE_AUTO, ATTN_ENGINE_BLAS};
    for (int engine = 0; engine < 2; ++engine) {
        attn_context *alone = mixed_context(1, engines[engine]);
        attn_context *together = mixed_context(3, engines[engine]);
        for (int i = 0; i < NUM_ENVIRONMENTS; ++i) {
            int different = 0;
            int changed = 0;
            const double error = run_all(&environments[i], alone, together, &different, &changed);
            printf("%s: %.0f roundoffs from the default environment's results\n",
                   environments[i].name, error);
            assert_int_equal(different, 0);
            assert_int_equal(changed, 0);
            assert_true(error <= MOST_ROUNDOFFS);
        }
        attn_context_destroy(alone);
        attn_context_destroy(together);
    }
}

/* ---- the other functions ---- */

static bool make_and_ask(void) {
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = MIXED_EMBED, .num_heads = MIXED_HEADS};
    const attn_context_config settings = {.struct_size = sizeof settings, .num_threads = 2};
    attn_context_info info = {.struct_size = sizeof info};
    attn_context *context = NULL;
    attn_mha *layer = NULL;
    float values[4 * MIXED_EMBED] = {1};
    const int64_t shape[] = {4, MIXED_EMBED};
    attn_tensor x;
    attn_sdpa_report report = {.struct_size = sizeof report};
    size_t bytes = 0;
    const bool works =
        attn_context_create(&settings, &context) == ATTN_OK &&
        attn_context_describe(NULL, &info) == ATTN_OK &&
        attn_mha_create(context, &config, &layer) == ATTN_OK &&
        attn_mha_init_parameters(NULL, layer, NULL) == ATTN_OK &&
        attn_tensor_init(&x, values, ATTN_DTYPE_FLOAT32, 2, shape) == ATTN_OK &&
        attn_sdpa_explain(context, &x, &x, &x, NULL, &x, &report) == ATTN_OK &&
        attn_mha_workspace_bytes(context, layer, &x, &x, &x, NULL, &x, &bytes) == ATTN_OK &&
        attn_sdpa(context, &x, &x, &x, NULL, &x, NULL, 0) == ATTN_ERROR_OVERLAP;
    attn_mha_destroy(layer);
    attn_context_destroy(context);
    return works && attn_kernels_name(0) != NULL && attn_build_info() != NULL;
}

static void other_functions_leave_the_settings(void **state) {
    (void)state;
    for (int i = 0; i < NUM_ENVIRONMENTS; ++i) {
        const float_settings before = enter(&environments[i]);
        const bool works = make_and_ask();
        const float_settings after = settings_now();
        leave();
        assert_true(works);
        assert_true(are_equal(before, after));
    }
}

/* ---- numbers at the edge ---- */

enum { EDGE_ROWS = 24, EDGE_COLS = 16, EDGE_VALUES = EDGE_ROWS * EDGE_COLS };

static attn_status attend_edge(attn_context *context, float *query, float *value, float *out) {
    const int64_t shape[] = {EDGE_ROWS, EDGE_COLS};
    attn_tensor q;
    attn_tensor v;
    attn_tensor o;
    if (attn_tensor_init(&q, query, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK ||
        attn_tensor_init(&v, value, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK ||
        attn_tensor_init(&o, out, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK) {
        return ATTN_ERROR_VALUE;
    }
    return attn_sdpa(context, &q, &q, &v, NULL, &o, NULL, 0);
}

/* Queries of zeros or subnormal numbers weigh all keys alike: the outputs are means of the values.
 * Counts those that are not within `most` of `expected`. */
static int count_wrong_means(const environment *in, int32_t engine, float query_value,
                             float value_value, float expected, float most) {
    float query[EDGE_VALUES];
    float value[EDGE_VALUES];
    float out[EDGE_VALUES] = {0};
    for (int i = 0; i < EDGE_VALUES; ++i) {
        query[i] = query_value;
        value[i] = value_value;
    }
    attn_context *context = mixed_context(2, engine);
    const float_settings before = enter(in);
    const attn_status status = attend_edge(context, query, value, out);
    const bool is_left = are_equal(before, settings_now());
    leave();
    attn_context_destroy(context);
    int wrong = status != ATTN_OK || !is_left;
    for (int i = 0; i < EDGE_VALUES; ++i) {
        const bool is_right = isnan(expected)
                                  ? isnan(out[i]) != 0
                                  : out[i] == expected || fabsf(out[i] - expected) <= most;
        wrong += !is_right;
    }
    return wrong;
}

static void edge_numbers_give_defined_results(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int i = 0; i < NUM_ENVIRONMENTS; ++i) {
            const environment *in = &environments[i];
            /* A mean of subnormal numbers may become 0, whoever flushes. */
            const float smallest = FLT_MIN;
            assert_int_equal(count_wrong_means(in, engine, 1e-40F, 2, 2, 1e-4F), 0);
            assert_int_equal(count_wrong_means(in, engine, 1, 1e-40F, 1e-40F, smallest), 0);
            assert_int_equal(count_wrong_means(in, engine, 0, INFINITY, INFINITY, 0), 0);
            assert_int_equal(count_wrong_means(in, engine, 0, -INFINITY, -INFINITY, 0), 0);
            assert_int_equal(count_wrong_means(in, engine, NAN, 1, NAN, 0), 0);
            assert_int_equal(count_wrong_means(in, engine, INFINITY, 1, NAN, 0), 0);
            assert_int_equal(count_wrong_means(in, engine, 0, NAN, NAN, 0), 0);
        }
    }
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
        cmocka_unit_test(calls_are_bounded_and_leave_the_settings),
        cmocka_unit_test(other_functions_leave_the_settings),
        cmocka_unit_test(edge_numbers_give_defined_results),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
