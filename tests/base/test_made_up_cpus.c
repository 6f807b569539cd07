/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_made_up_cpus.c: which sets of kernels a CPU may run that lacks something. cpu_features.c is
 * included, and asks this file instead of the CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#if defined(__x86_64__)
static int made_up_cpu_supports(const char *feature);

#define __builtin_cpu_supports made_up_cpu_supports
#endif
#include "base/cpu_features.c"

static void every_cpu_has_the_baseline_and_no_unknown_set(void **state) {
    (void)state;
    assert_true(attni_cpu_has(ATTNI_ISA_BASELINE));
    assert_false(attni_cpu_has((attni_isa)99));
#if defined(__aarch64__)
    assert_true(attni_cpu_has(ATTNI_ISA_NEON));
    assert_false(attni_cpu_has(ATTNI_ISA_AVX2));
#else
    assert_false(attni_cpu_has(ATTNI_ISA_NEON));
#endif
}

#if defined(__x86_64__)
static const char *lacking; /* the one feature that the CPU has not, or NULL */

static int made_up_cpu_supports(const char *feature) {
    return lacking == NULL || strcmp(feature, lacking) != 0;
}

static void each_feature_is_needed_by_the_sets_that_use_it(void **state) {
    (void)state;
    static const struct {
        const char *lacking;
        bool avx2;
        bool avx512;
    } cpus[] = {
        {NULL, true, true},        {"avx2", false, false},    {"fma", false, false},
        {"avx512f", true, false},  {"avx512dq", true, false}, {"avx512bw", true, false},
        {"avx512vl", true, false}, {"avx512cd", true, true},
    };
    for (size_t i = 0; i < sizeof cpus / sizeof cpus[0]; ++i) {
        lacking = cpus[i].lacking;
        assert_int_equal(attni_cpu_has(ATTNI_ISA_AVX2), cpus[i].avx2);
        assert_int_equal(attni_cpu_has(ATTNI_ISA_AVX512), cpus[i].avx512);
    }
    lacking = NULL;
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cpu_has_the_baseline_and_no_unknown_set),
#if defined(__x86_64__)
        cmocka_unit_test(each_feature_is_needed_by_the_sets_that_use_it),
#endif
    };
    return cmocka_run_group_tests_name("made-up CPUs", tests, NULL, NULL);
}
