/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_rms_norm_covering.c: attn_rms_norm with every two settings of any two options together, against the
 * oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rms_norm_case.h"

/* In every round each pair meets among other settings and on other data. */
enum { NUM_ROUNDS = 2 };

static void rms_norm_with_every_pair_of_settings_is_within_the_error_bound(void **state) {
    (void)state;
    const factor_set set = rms_norm_factor_set();
    call_outcome outcome = {0};
    int64_t failures = 0;
    for (uint64_t round = 1; round <= NUM_ROUNDS; ++round) {
        failures += run_covering_array("rms_norm covering", &set, 1000000 * round,
                                       rms_norm_case_run, &outcome);
    }
    outcome_print("rms_norm covering", &outcome);
    assert_int_equal(failures, 0);
    assert_true(outcome_is_tight(&outcome.output));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_with_every_pair_of_settings_is_within_the_error_bound),
    };
    return cmocka_run_group_tests_name("rms_norm covering", tests, NULL, NULL);
}
