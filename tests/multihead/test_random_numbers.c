/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_random_numbers.c: the generator against published numbers, and the ends and moments of what
 * is made of its bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "multihead/random_numbers.h"

static void bits_are_splitmix64s(void **state) {
    (void)state;
    static const uint64_t expected[] = {
        UINT64_C(6457827717110365317), UINT64_C(3203168211198807973), UINT64_C(9817491932198370423),
        UINT64_C(4593380528125082431), UINT64_C(16408922859458223821)};
    attni_random random = {1234567};
    for (int i = 0; i < 5; ++i) {
        assert_true(attni_random_bits(&random) == expected[i]);
    }
}

/* States whose next 64 bits are all ones, all zeroes, and almost all ones. */
static const uint64_t extreme_states[] = {
    UINT64_C(0x31628AF67B2131AB), UINT64_C(0x61C8864680B583EB), UINT64_C(0x9CC3A18F7A01A2D1)};

static void extreme_states_give_extreme_bits(void **state) {
    (void)state;
    static const uint64_t expected[] = {UINT64_MAX, 0, UINT64_MAX - 2048};
    for (int i = 0; i < 3; ++i) {
        attni_random random = {extreme_states[i]};
        assert_true(attni_random_bits(&random) == expected[i]);
    }
}

static void unit_never_reaches_0_or_1(void **state) {
    (void)state;
    for (int i = 0; i < 3; ++i) {
        attni_random random = {extreme_states[i]};
        const double unit = attni_random_unit(&random);
        if (!(unit > 0 && unit < 1)) {
            fail_msg("state %llx gives %a", (unsigned long long)extreme_states[i], unit);
        }
    }
}

static void symmetric_never_reaches_its_ends(void **state) {
    (void)state;
    for (int i = 0; i < 3; ++i) {
        attni_random random = {extreme_states[i]};
        const double value = attni_random_symmetric(&random);
        if (!(value > -1 && value < 1)) {
            fail_msg("state %llx gives %a", (unsigned long long)extreme_states[i], value);
        }
    }
}

static void normal_of_extreme_bits_is_finite(void **state) {
    (void)state;
    for (int i = 0; i < 3; ++i) {
        attni_random random = {extreme_states[i]};
        assert_true(isfinite(attni_random_normal(&random)));
    }
}

enum { NUM_NUMBERS = 1000000 };

/* Counts of each tenth of the unit interval, within 4.5 standard errors. */
static void unit_is_even(void **state) {
    (void)state;
    int64_t counts[10] = {0};
    attni_random random = attni_random_stream(5, 0);
    for (int i = 0; i < NUM_NUMBERS; ++i) {
        ++counts[(int)(10 * attni_random_unit(&random))];
    }
    for (int i = 0; i < 10; ++i) {
        assert_true(fabs((double)counts[i] - NUM_NUMBERS / 10.0) < 4.5 * sqrt(NUM_NUMBERS * 0.09));
    }
}

static void normal_has_the_moments_of_one(void **state) {
    (void)state;
    double sums[5] = {0};
    attni_random random = attni_random_stream(6, 0);
    for (int i = 0; i < NUM_NUMBERS; ++i) {
        const double value = attni_random_normal(&random);
        double power = 1;
        for (int k = 1; k <= 4; ++k) {
            power *= value;
            sums[k] += power / NUM_NUMBERS;
        }
    }
    /* Means of the first four powers, 0, 1, 0 and 3, and their variances 1, 2, 15 and 96. */
    const double error = sqrt(1.0 / NUM_NUMBERS);
    assert_true(fabs(sums[1]) < 4 * error);
    assert_true(fabs(sums[2] - 1) < 4 * sqrt(2) * error);
    assert_true(fabs(sums[3]) < 4 * sqrt(15) * error);
    assert_true(fabs(sums[4] - 3) < 4 * sqrt(96) * error);
}

/* Streams of one seed, and equal streams of neighbouring seeds, have nothing to do with each other.
 */
static void streams_are_unrelated(void **state) {
    (void)state;
    enum { STREAMS = 12, LENGTH = 2000 };
    attni_random randoms[STREAMS];
    for (int i = 0; i < STREAMS; ++i) {
        randoms[i] = attni_random_stream((uint64_t)(i / 4), (uint64_t)(i % 4));
    }
    static double values[STREAMS][LENGTH];
    for (int i = 0; i < STREAMS; ++i) {
        for (int j = 0; j < LENGTH; ++j) {
            values[i][j] = attni_random_symmetric(&randoms[i]);
        }
    }
    for (int a = 0; a < STREAMS; ++a) {
        for (int b = a + 1; b < STREAMS; ++b) {
            for (int shift = 0; shift <= 2; ++shift) {
                double product = 0;
                for (int j = 0; j + shift < LENGTH; ++j) {
                    product += values[a][j + shift] * values[b][j];
                }
                assert_true(fabs(product * 3 / sqrt(LENGTH)) < 4.5);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_splitmix64s),
        cmocka_unit_test(extreme_states_give_extreme_bits),
        cmocka_unit_test(unit_never_reaches_0_or_1),
        cmocka_unit_test(symmetric_never_reaches_its_ends),
        cmocka_unit_test(normal_of_extreme_bits_is_finite),
        cmocka_unit_test(unit_is_even),
        cmocka_unit_test(normal_has_the_moments_of_one),
        cmocka_unit_test(streams_are_unrelated),
    };
    return cmocka_run_group_tests_name("random_numbers", tests, NULL, NULL);
}
