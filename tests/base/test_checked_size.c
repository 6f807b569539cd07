/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_checked_size.c: arithmetic that cannot wrap around, against 128-bit arithmetic over all
 * pairs of edge values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked_size.h"

__extension__ typedef __int128 wide;

static const int64_t edges[] = {
    INT64_MIN,
    INT64_MIN + 1,
    -(INT64_C(1) << 62),
    -(INT64_C(1) << 32),
    INT32_MIN,
    -64,
    -3,
    -2,
    -1,
    0,
    1,
    2,
    3,
    7,
    63,
    64,
    INT32_MAX,
    INT64_C(1) << 31,
    INT64_C(3037000499),
    INT64_C(3037000500),
    INT64_C(1) << 32,
    INT64_C(1) << 62,
    INT64_MAX / 2 + 1,
    INT64_MAX - 64,
    INT64_MAX - 1,
    INT64_MAX,
};

enum { NUM_EDGES = sizeof edges / sizeof edges[0] };

static bool fits(wide value) {
    return value >= INT64_MIN && value <= INT64_MAX;
}

static void check(const char *what, int64_t a, int64_t b, bool said_fits, int64_t actual,
                  wide exact) {
    if (said_fits != fits(exact) || (said_fits && (wide)actual != exact)) {
        fail_msg("%s of %lld and %lld: fits %d, got %lld", what, (long long)a, (long long)b,
                 said_fits, (long long)actual);
    }
}

static void multiply_and_add_agree_with_128_bits(void **state) {
    (void)state;
    for (int i = 0; i < NUM_EDGES; ++i) {
        for (int j = 0; j < NUM_EDGES; ++j) {
            const int64_t a = edges[i];
            const int64_t b = edges[j];
            int64_t product = 0;
            int64_t sum = 0;
            const bool product_fits = attni_multiply(a, b, &product);
            const bool sum_fits = attni_add(a, b, &sum);
            check("product", a, b, product_fits, product, (wide)a * b);
            check("sum", a, b, sum_fits, sum, (wide)a + b);
        }
    }
}

static void saturating_add_stays_at_the_end_it_would_cross(void **state) {
    (void)state;
    for (int i = 0; i < NUM_EDGES; ++i) {
        for (int j = 0; j < NUM_EDGES; ++j) {
            const wide exact = (wide)edges[i] + edges[j];
            const int64_t expected = exact > INT64_MAX   ? INT64_MAX
                                     : exact < INT64_MIN ? INT64_MIN
                                                         : (int64_t)exact;
            assert_true(attni_saturating_add(edges[i], edges[j]) == expected);
        }
    }
}

static void min_max_and_clamp_choose_the_right_one(void **state) {
    (void)state;
    for (int i = 0; i < NUM_EDGES; ++i) {
        for (int j = 0; j < NUM_EDGES; ++j) {
            const int64_t a = edges[i];
            const int64_t b = edges[j];
            assert_true(attni_min(a, b) == edges[i < j ? i : j]);
            assert_true(attni_max(a, b) == edges[i < j ? j : i]);
            for (int k = j; k < NUM_EDGES; ++k) {
                assert_true(attni_clamp(a, b, edges[k]) == edges[i < j ? j : i > k ? k : i]);
            }
        }
    }
}

static void divide_up_rounds_up(void **state) {
    (void)state;
    for (int i = 0; i < NUM_EDGES; ++i) {
        for (int j = 0; j < NUM_EDGES; ++j) {
            const int64_t a = edges[i];
            const int64_t b = edges[j];
            if (a >= 0 && b > 0) {
                assert_true(attni_divide_up(a, b) == (int64_t)(((wide)a + b - 1) / b));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiply_and_add_agree_with_128_bits),
        cmocka_unit_test(saturating_add_stays_at_the_end_it_would_cross),
        cmocka_unit_test(min_max_and_clamp_choose_the_right_one),
        cmocka_unit_test(divide_up_rounds_up),
    };
    return cmocka_run_group_tests_name("checked_size", tests, NULL, NULL);
}
