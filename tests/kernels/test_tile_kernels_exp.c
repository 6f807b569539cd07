/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tile_kernels_exp.c: the exponential of the tile kernels, within 2 units in the last place
 * over all float32 numbers in [-infinity, -0] (every 257th of them without --full).
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "kernel_choice.h"
#include "panel_setting.h"

enum { KEYS = 64, CHUNK = KEYS * ATTNI_PANEL_LANES, MOST_SETS = 8 };

static uint32_t step = 257;

static float arguments[CHUNK];
static double exact[CHUNK];
static float tile[CHUNK] __attribute__((aligned(64)));
static double largest[MOST_SETS];

static float argument_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Runs arguments[0..CHUNK) through a set's kernel as scores of rows whose maximum is 0. */
static void exponentiate(const attni_kernel_set *set) {
    static attni_panel_state state __attribute__((aligned(64)));
    const int32_t width = ATTNI_PANEL_VECTORS * set->tiles->lanes;
    state = (attni_panel_state){.max = {0}};
    memcpy(tile, arguments, sizeof tile);
    set->tiles->exponentiate(tile, ATTNI_PANEL_VECTORS, CHUNK / width, &state);
}

/* The first `n` arguments of those at hand count. */
static void measure(int64_t n) {
    const attni_kernel_set *set;
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        assert_true(index < MOST_SETS && CHUNK % (ATTNI_PANEL_VECTORS * set->tiles->lanes) == 0);
        exponentiate(set);
        for (int64_t j = 0; j < n; ++j) {
            const bool vanishes = tile[j] == 0 && exact[j] < (double)FLT_MIN;
            const double error =
                vanishes ? 0
                         : error_in_ulp(ATTN_DTYPE_FLOAT32, (double)tile[j], (long double)exact[j]);
            if (!(error <= 2)) {
                fail_msg("%s: exp(%a) = %a, expected %a", set->name, (double)arguments[j],
                         (double)tile[j], exact[j]);
            }
            largest[index] = error > largest[index] ? error : largest[index];
        }
    }
}

/* The C library's double exp is exact enough: its error is below 2^-28 of a float32 unit. The bits
 * of -0, -smallest, ... -infinity count upwards. */
static void exp_of_float32_numbers_is_within_two_units(void **state) {
    (void)state;
    const uint32_t last = UINT32_C(0xFF800000);
    const attni_kernel_set *set;
    int64_t n = 0;
    int64_t num_arguments = 0;
    for (uint64_t bits = UINT32_C(0x80000000); bits <= last; bits += step) {
        arguments[n] = argument_of((uint32_t)bits);
        exact[n] = arguments[n] < -110 ? 0 : exp((double)arguments[n]);
        ++n;
        ++num_arguments;
        if (n == CHUNK || bits + step > last) {
            measure(n);
            n = 0;
        }
    }
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        print_message("%s: %lld arguments, largest error %.4f units in the last place\n", set->name,
                      (long long)num_arguments, largest[index]);
    }
    assert_true(num_arguments == (int64_t)(last - UINT32_C(0x80000000)) / step + 1);
}

static void exp_ends_of_the_range_are_exact(void **state) {
    (void)state;
    static const float values[] = {0.0F, -0.0F,  -104, -1e30F, -FLT_MAX, -(float)INFINITY,
                                   NAN,  -1e-40F};
    static const float results[] = {1, 1, 0, 0, 0, 0, NAN, 1};
    const attni_kernel_set *set;
    for (int j = 0; j < CHUNK; ++j) {
        arguments[j] = values[j % 8];
    }
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        exponentiate(set);
        for (int j = 0; j < CHUNK; ++j) {
            if (!is_same_number((double)tile[j], (double)results[j % 8])) {
                fail_msg("%s: exp(%g) = %a", set->name, (double)arguments[j], (double)tile[j]);
            }
        }
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--full") == 0) {
        step = 1;
    } else if (argc > 1) {
        print_error("usage: test_tile_kernels_exp [--full]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_of_float32_numbers_is_within_two_units),
        cmocka_unit_test(exp_ends_of_the_range_are_exact),
    };
    return cmocka_run_group_tests_name("tile_kernels_exp", tests, NULL, NULL);
}
