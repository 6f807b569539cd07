/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_covering.c: attn_sdpa with every two settings of any two options together, against the
 * float64 oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sdpa_case.h"

/* In every round each pair meets among other settings and on other data. */
enum { NUM_ROUNDS = 4 };

static void sdpa_with_every_pair_of_settings_is_within_the_error_bound(void **state) {
    (void)state;
    const factor_set set = sdpa_factor_set();
    call_outcome outcome = {0};
    int64_t failures = 0;
    for (uint64_t round = 1; round <= NUM_ROUNDS; ++round) {
        failures +=
            run_covering_array("sdpa covering", &set, 1000000 * round, sdpa_case_run, &outcome);
    }
    outcome_print("sdpa covering", &outcome);
    assert_int_equal(failures, 0);
    assert_true(outcome_is_tight(&outcome.output));
    assert_true(outcome_is_tight(&outcome.weights));
    assert_true(outcome_is_tight(&outcome.lse));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdpa_with_every_pair_of_settings_is_within_the_error_bound),
    };
    return cmocka_run_group_tests_name("sdpa covering", tests, NULL, NULL);
}
