/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_long_calls.c: attn_sdpa in float32 by the fused engine, where there is one, with all options
 * drawn at random and sizes that cross its blocks of rows and of keys, its panels and its splits,
 * against the float64 oracle.
 *
 *     test_long_calls [first seed] [number of calls]
 *
 * or the environment variables ATTENTION_TEST_SEED and ATTENTION_TEST_LONG_COUNT. A call depends on
 * its seed alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <attention/context.h>

#include "sdpa_case.h"

static uint64_t first_seed = 1;
static int64_t num_calls = 150;

/* A random case with the settings this test is about. No rule speaks against float32. */
static factor_case long_case(const factor_set *set, random_state *random) {
    factor_case chosen = random_case(set, random);
    chosen.level[FACTOR_DTYPE] = DTYPE_OF_FLOAT;
    if (set->factors[FACTOR_ENGINE].num_levels > ATTN_ENGINE_FUSED) {
        chosen.level[FACTOR_ENGINE] = ATTN_ENGINE_FUSED;
    }
    return chosen;
}

static int run_call(const factor_set *set, uint64_t seed, call_outcome *outcome) {
    random_state random = random_seeded(seed);
    const factor_case chosen = long_case(set, &random);
    if (sdpa_case_run(set, &chosen, seed, FREE_LONG, outcome) == 0) {
        return 0;
    }
    char options[1600];
    describe_case(set, &chosen, options, sizeof options);
    printf("long call with seed %llu failed: %s\n    %s\n", (unsigned long long)seed,
           outcome->message, options);
    return 1;
}

static void any_long_call_is_within_the_error_bound(void **state) {
    (void)state;
    const factor_set set = sdpa_factor_set();
    call_outcome outcome = {0};
    int64_t failures = 0;
    printf("%lld long calls from seed %llu\n", (long long)num_calls,
           (unsigned long long)first_seed);
    for (int64_t i = 0; i < num_calls; ++i) {
        failures += run_call(&set, first_seed + (uint64_t)i, &outcome);
    }
    outcome_print("long attn_sdpa", &outcome);
    assert_int_equal(failures, 0);
}

/* The text of argument `number`, else of the environment variable, else NULL. */
static const char *setting(int argc, char **argv, int number, const char *variable) {
    return number < argc ? argv[number] : getenv(variable);
}

int main(int argc, char **argv) {
    const char *seed = setting(argc, argv, 1, "ATTENTION_TEST_SEED");
    const char *count = setting(argc, argv, 2, "ATTENTION_TEST_LONG_COUNT");
    first_seed = seed != NULL ? strtoull(seed, NULL, 10) : first_seed;
    num_calls = count != NULL ? strtoll(count, NULL, 10) : num_calls;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_long_call_is_within_the_error_bound),
    };
    return cmocka_run_group_tests_name("long calls", tests, NULL, NULL);
}
