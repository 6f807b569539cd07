/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_random_calls.c: calls with all options drawn at random, against the float64 oracle. Three of
 * nine are attn_sdpa, two attn_mha_forward, the rest attn_softmax, attn_rope, attn_rms_norm and
 * attn_sdpa_merge.
 *
 *     test_random_calls [first seed] [number of calls]
 *
 * or the environment variables ATTENTION_TEST_SEED and ATTENTION_TEST_COUNT. A call depends on its
 * seed alone, so that a failing one is repeated by "test_random_calls <its seed> 1".
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "merge_case.h"
#include "mha_case.h"
#include "rms_norm_case.h"
#include "rope_case.h"
#include "sdpa_case.h"
#include "softmax_case.h"

static uint64_t first_seed = 1;
static int64_t num_calls = 2000;

typedef struct call_kind {
    const char *name;
    factor_set set;
    case_runner run;
    call_outcome outcome;
} call_kind;

static int run_call(call_kind *kind, uint64_t seed) {
    random_state random = random_seeded(seed);
    const factor_case chosen = random_case(&kind->set, &random);
    if (kind->run(&kind->set, &chosen, seed, FREE_SHORT, &kind->outcome) == 0) {
        return 0;
    }
    char options[1600];
    describe_case(&kind->set, &chosen, options, sizeof options);
    printf("%s with seed %llu failed: %s\n    %s\n", kind->name, (unsigned long long)seed,
           kind->outcome.message, options);
    return 1;
}

static void any_call_is_within_the_error_bound(void **state) {
    (void)state;
    call_kind kinds[] = {
        {.name = "random attn_sdpa", .set = sdpa_factor_set(), .run = sdpa_case_run},
        {.name = "random attn_mha_forward", .set = mha_factor_set(), .run = mha_case_run},
        {.name = "random attn_softmax", .set = softmax_factor_set(), .run = softmax_case_run},
        {.name = "random attn_rope", .set = rope_factor_set(), .run = rope_case_run},
        {.name = "random attn_rms_norm", .set = rms_norm_factor_set(), .run = rms_norm_case_run},
        {.name = "random attn_sdpa_merge", .set = merge_factor_set(), .run = merge_case_run},
    };
    const int kind_of_remainder[] = {0, 1, 0, 1, 0, 2, 3, 4, 5};
    int64_t failures = 0;
    printf("%lld random calls from seed %llu\n", (long long)num_calls,
           (unsigned long long)first_seed);
    for (int64_t i = 0; i < num_calls; ++i) {
        const uint64_t seed = first_seed + (uint64_t)i;
        failures += run_call(&kinds[kind_of_remainder[seed % 9]], seed);
    }
    for (int k = 0; k < 6; ++k) {
        outcome_print(kinds[k].name, &kinds[k].outcome);
    }
    assert_int_equal(failures, 0);
}

/* The text of argument `number`, else of the environment variable, else NULL. */
static const char *setting(int argc, char **argv, int number, const char *variable) {
    return number < argc ? argv[number] : getenv(variable);
}

int main(int argc, char **argv) {
    const char *seed = setting(argc, argv, 1, "ATTENTION_TEST_SEED");
    const char *count = setting(argc, argv, 2, "ATTENTION_TEST_COUNT");
    first_seed = seed != NULL ? strtoull(seed, NULL, 10) : first_seed;
    num_calls = count != NULL ? strtoll(count, NULL, 10) : num_calls;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_is_within_the_error_bound),
    };
    return cmocka_run_group_tests_name("random calls", tests, NULL, NULL);
}
