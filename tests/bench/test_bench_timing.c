/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_bench_timing.c: rounds of contestants, and quantiles.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bench_timing.h"

static void quantiles_are_interpolated(void **state) {
    (void)state;
    double values[] = {4.0, 1.0, 3.0, 2.0};
    assert_true(bench_quantile(values, 4, 0.5) == 2.5);
    assert_true(bench_quantile(values, 4, 0.0) == 1.0);
    assert_true(bench_quantile(values, 4, 1.0) == 4.0);
    assert_true(bench_quantile(values, 4, 0.25) == 1.75);
    assert_true(bench_quantile(values + 2, 1, 0.75) == 3.0);
}

/* A call of one query and one key takes far below 20 us, so that a timing has several. */
static void every_contestant_is_timed_in_every_round(void **state) {
    (void)state;
    bench_options options = bench_options_default(BENCH_SDPA);
    bench_call *calls = test_calloc(2, sizeof *calls);
    bench_times times[2];
    options.queries.value = 1;
    options.heads.value = 1;
    options.threads.value = 1;
    assert_int_equal(bench_options_complete(&options), 0);
    assert_int_equal(bench_call_make(&calls[0], &options), 0);
    assert_int_equal(bench_call_make(&calls[1], &options), 0);
    assert_int_equal(bench_time(calls, 2, 7, 0.0, times), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(times[i].count, 7);
        assert_true(times[i].calls >= 1);
        assert_true(bench_quantile(times[i].seconds, 7, 0.0) > 0.0);
        bench_times_free(&times[i]);
        bench_call_free(&calls[i]);
    }
    test_free(calls);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_interpolated),
        cmocka_unit_test(every_contestant_is_timed_in_every_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
