/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_backward_covering.c: attn_mha_backward with every two settings of any two options of the
 * layer and its call together, against the float64 oracle.
 *
 *     test_mha_backward_covering [ROUNDS]
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mha_backward_case.h"

/* In every round each pair meets among other settings and on other data. */
static int64_t num_rounds = 1;

static void gradients_of_layers_with_every_pair_of_settings_are_within_the_bound(void **state) {
    (void)state;
    const factor_set set = mha_backward_factor_set();
    call_outcome outcome = {0};
    int64_t failures = 0;
    for (int64_t round = 1; round <= num_rounds; ++round) {
        failures += run_covering_array("mha backward covering", &set, 3000000 * (uint64_t)round,
                                       mha_backward_case_run, &outcome);
    }
    outcome_print("mha backward covering", &outcome);
    assert_int_equal(failures, 0);
    assert_true(outcome_is_tight(&outcome.output));
    assert_true(outcome_is_tight(&outcome.weights));
    assert_true(outcome_is_tight(&outcome.scores));
}

int main(int count, char **arguments) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_layers_with_every_pair_of_settings_are_within_the_bound),
    };
    if (count > 1) {
        num_rounds = strtol(arguments[1], NULL, 10);
    }
    return cmocka_run_group_tests_name("mha backward covering", tests, NULL, NULL);
}
