/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_exp.c: the exponential of every set of kernels, within 2 units in the last place:
 * float32 over all its numbers in [-88, 0] (every 257th of them without --full), float64 over ten
 * million random ones (a million with --emulated).
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

enum { CHUNK = 4096, MOST_CHOICES = 16 };

static uint32_t step = 257;
static int64_t num_random = 10000000;

static double arguments[CHUNK];
static long double exact[CHUNK];
static char row[CHUNK * 8];
static double largest[MOST_CHOICES];

/* Runs arguments[0..n) through all kernels of a type. */
static void measure(int32_t dtype, int64_t n) {
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        assert_true(index < MOST_CHOICES);
        if (choice.dtype != dtype) {
            continue;
        }
        for (int64_t j = 0; j < n; ++j) {
            row_set(row, j, dtype, arguments[j]);
        }
        choice.kernels->exp_sum(row, n, 0);
        for (int64_t j = 0; j < n; ++j) {
            const double actual = row_get(row, j, dtype);
            const bool vanishes = actual == 0 && exact[j] < (long double)smallest_normal(dtype);
            const double error = vanishes ? 0 : error_in_ulp(dtype, actual, exact[j]);
            if (!(error <= 2)) {
                fail_msg("%s: exp(%a) = %a, expected %La", choice_text(&choice), arguments[j],
                         actual, exact[j]);
            }
            largest[index] = error > largest[index] ? error : largest[index];
        }
    }
}

static void print_errors(int32_t dtype, int64_t num_arguments) {
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        if (choice.dtype == dtype) {
            print_message("%s: %lld arguments, largest error %.4f units in the last place\n",
                          choice_text(&choice), (long long)num_arguments, largest[index]);
        }
    }
}

/* The C library's double exp is exact enough for float32: its error is below 2^-28 of a float32
 * unit. */
static void exp_of_float32_numbers_is_within_two_units(void **state) {
    (void)state;
    const float lowest = -88;
    uint32_t last;
    memcpy(&last, &lowest, sizeof last);
    int64_t n = 0;
    int64_t num_arguments = 0;
    /* The bits of -0, -smallest, ... -88 count upwards. */
    for (uint32_t bits = UINT32_C(0x80000000); bits <= last; bits += step) {
        float argument;
        memcpy(&argument, &bits, sizeof argument);
        arguments[n] = (double)argument;
        exact[n++] = (long double)exp((double)argument);
        ++num_arguments;
        if (n == CHUNK || last - bits < step) {
            measure(ATTN_DTYPE_FLOAT32, n);
            n = 0;
        }
    }
    print_errors(ATTN_DTYPE_FLOAT32, num_arguments);
    assert_true(num_arguments == (int64_t)(last - UINT32_C(0x80000000)) / step + 1);
}

/* Half of the arguments over the whole range, half where most scores are. */
static void exp_of_float64_numbers_is_within_two_units(void **state) {
    (void)state;
    random_state random = random_seeded(101);
    for (int64_t first = 0; first < num_random; first += CHUNK) {
        const int64_t n = num_random - first < CHUNK ? num_random - first : CHUNK;
        for (int64_t j = 0; j < n; ++j) {
            arguments[j] = random_real(&random, j % 2 == 0 ? -709 : -10, 0);
            exact[j] = expl((long double)arguments[j]);
        }
        measure(ATTN_DTYPE_FLOAT64, n);
    }
    print_errors(ATTN_DTYPE_FLOAT64, num_random);
}

static void exp_ends_of_the_range_are_exact(void **state) {
    (void)state;
    static const double values[] = {0.0, -0.0, -104, -746, -1e30, -INFINITY, NAN, -1e-40};
    static const double results[] = {1, 1, 0, 0, 0, 0, NAN, 1};
    enum { COUNT = sizeof values / sizeof values[0] };
    kernel_choice choice;
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        const bool is_single = choice.dtype == ATTN_DTYPE_FLOAT32;
        for (int j = 0; j < COUNT; ++j) {
            row_set(row, j, choice.dtype, values[j]);
        }
        choice.kernels->exp_sum(row, COUNT, 0);
        for (int j = 0; j < COUNT; ++j) {
            const double actual = row_get(row, j, choice.dtype);
            if (!is_same_number(actual, results[j]) && (is_single || j != 2)) {
                fail_msg("%s: exp(%g) = %a", choice_text(&choice), values[j], actual);
            }
        }
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--full") == 0) {
        step = 1;
    } else if (argc > 1 && strcmp(argv[1], "--emulated") == 0) {
        num_random = 1000000;
    } else if (argc > 1) {
        print_error("usage: test_row_exp [--full | --emulated]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_of_float32_numbers_is_within_two_units),
        cmocka_unit_test(exp_of_float64_numbers_is_within_two_units),
        cmocka_unit_test(exp_ends_of_the_range_are_exact),
    };
    return cmocka_run_group_tests_name("row_exp", tests, NULL, NULL);
}
