/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_rope_covering.c: attn_rope with every two settings of any two options together, against the
 * oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rope_case.h"

static void rope_with_every_pair_of_settings_is_within_the_error_bound(void **state) {
    (void)state;
    const factor_set set = rope_factor_set();
    call_outcome outcome = {0};
    const int64_t failures =
        run_covering_array("rope covering", &set, 1000000, rope_case_run, &outcome);
    outcome_print("rope covering", &outcome);
    assert_int_equal(failures, 0);
    assert_true(outcome_is_tight(&outcome.output));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_with_every_pair_of_settings_is_within_the_error_bound),
    };
    return cmocka_run_group_tests_name("rope covering", tests, NULL, NULL);
}
