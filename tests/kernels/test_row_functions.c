/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_functions.c: softcap and sigmoid against long double, over everyday numbers and over
 * numbers of every exponent.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "kernel_choice.h"

enum { CHUNK = 1000, NUM_CHUNKS = 250 };

static double values[CHUNK];
static long double exact[CHUNK];
static char row[CHUNK * 8];

/* Any finite number of the type, all exponents alike. */
static double any_finite(random_state *random, int32_t dtype) {
    double value = NAN;
    while (!isfinite(value)) {
        const uint64_t bits = random_bits(random);
        const uint32_t half = (uint32_t)bits;
        float single;
        memcpy(&single, &half, sizeof single);
        memcpy(&value, &bits, sizeof value);
        value = dtype == ATTN_DTYPE_FLOAT32 ? (double)single : value;
    }
    return value;
}

/* A third each: everyday numbers, numbers close to 0, all others. */
static void draw_values(random_state *random, int32_t dtype, double widest) {
    for (int j = 0; j < CHUNK; ++j) {
        const double real = random_real(random, -widest, widest);
        values[j] = j % 3 == 0 ? any_finite(random, dtype)
                               : rounded_to(dtype, j % 3 == 1 ? real : ldexp(real, -(j % 40)));
    }
}

static void set_row(int32_t dtype) {
    for (int j = 0; j < CHUNK; ++j) {
        row_set(row, j, dtype, values[j]);
    }
}

/* The largest error of a chunk in units in the last place. `vanishing` results may be 0 below the
 * smallest normal number. */
static double largest_error(const kernel_choice *choice, bool vanishing) {
    double largest = 0;
    for (int j = 0; j < CHUNK; ++j) {
        const double actual = row_get(row, j, choice->dtype);
        const bool vanishes =
            vanishing && actual == 0 && exact[j] < (long double)smallest_normal(choice->dtype);
        const double error = vanishes ? 0 : error_in_ulp(choice->dtype, actual, exact[j]);
        if (!(error <= largest)) {
            largest = error;
        }
    }
    return largest;
}

static void report_error(const char *function, const kernel_choice *choice, double error,
                         double bound) {
    print_message("%s %s: largest error %.3f units in the last place\n", function,
                  choice_text(choice), error);
    assert_true(error <= bound);
}

static void sigmoid_is_within_four_units(void **state) {
    (void)state;
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        random_state random = random_seeded(91);
        double largest = 0;
        for (int chunk = 0; chunk < NUM_CHUNKS; ++chunk) {
            draw_values(&random, choice.dtype, choice.dtype == ATTN_DTYPE_FLOAT32 ? 90 : 720);
            for (int j = 0; j < CHUNK; ++j) {
                exact[j] = 1 / (1 + expl(-(long double)values[j]));
            }
            set_row(choice.dtype);
            choice.kernels->sigmoid(row, CHUNK);
            largest = fmax(largest, largest_error(&choice, true));
        }
        report_error("sigmoid", &choice, largest, 4);
    }
}

/* Where row / cap is below the smallest normal number it has lost bits before anything else is
 * done; such values are left out. */
static void softcap_is_within_six_units(void **state) {
    (void)state;
    static const double caps[] = {0.5, 1, 5, 30, 50, 0.001, 12345};
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        random_state random = random_seeded(92);
        double largest = 0;
        for (int chunk = 0; chunk < NUM_CHUNKS; ++chunk) {
            const double cap = rounded_to(choice.dtype, caps[chunk % 7]);
            draw_values(&random, choice.dtype, 12 * cap);
            for (int j = 0; j < CHUNK; ++j) {
                values[j] = fabs(values[j]) < 2 * fmax(cap, 1) * smallest_normal(choice.dtype)
                                ? 0
                                : values[j];
                exact[j] = (long double)cap * tanhl((long double)values[j] / (long double)cap);
            }
            set_row(choice.dtype);
            choice.kernels->softcap(row, CHUNK, cap);
            largest = fmax(largest, largest_error(&choice, false));
        }
        report_error("softcap", &choice, largest, 6);
    }
}

struct special {
    double value;
    double result;
};

static void assert_specials(const kernel_choice *choice, const struct special *specials,
                            int count) {
    for (int j = 0; j < count; ++j) {
        const double actual = row_get(row, j, choice->dtype);
        if (!is_same_number(actual, specials[j].result)) {
            fail_msg("%s: %g became %a, expected %a", choice_text(choice), specials[j].value,
                     actual, specials[j].result);
        }
    }
}

static void sigmoid_special_values_are_exact(void **state) {
    (void)state;
    const struct special specials[] = {
        {NAN, NAN}, {INFINITY, 1}, {-INFINITY, 0}, {0.0, 0.5},    {-0.0, 0.5},
        {1e30, 1},  {-1e30, 0},    {1e-40, 0.5},   {-1e-40, 0.5},
    };
    enum { COUNT = sizeof specials / sizeof specials[0] };
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        for (int j = 0; j < COUNT; ++j) {
            row_set(row, j, choice.dtype, specials[j].value);
        }
        choice.kernels->sigmoid(row, COUNT);
        assert_specials(&choice, specials, COUNT);
    }
}

static void softcap_special_values_are_exact(void **state) {
    (void)state;
    const struct special specials[] = {
        {NAN, NAN},   {INFINITY, 50}, {-INFINITY, -50}, {0.0, 0.0},
        {-0.0, -0.0}, {1e30, 50},     {-1e30, -50},     {3e38, 50},
    };
    enum { COUNT = sizeof specials / sizeof specials[0] };
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        for (int j = 0; j < COUNT; ++j) {
            row_set(row, j, choice.dtype, specials[j].value);
        }
        choice.kernels->softcap(row, COUNT, 50);
        assert_specials(&choice, specials, COUNT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigmoid_is_within_four_units),
        cmocka_unit_test(softcap_is_within_six_units),
        cmocka_unit_test(sigmoid_special_values_are_exact),
        cmocka_unit_test(softcap_special_values_are_exact),
    };
    return cmocka_run_group_tests_name("row_functions", tests, NULL, NULL);
}
