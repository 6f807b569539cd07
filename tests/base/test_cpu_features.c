/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_cpu_features.c: what we believe of the CPU, against what the kernel says of it in
 * /proc/cpuinfo.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu_features.h"

static void cpu_every_one_has_the_baseline(void **state) {
    (void)state;
    assert_true(attni_cpu_has(ATTNI_ISA_BASELINE));
}

#if defined(__x86_64__)
static char flags[8192]; /* " fpu vme ... ", or "" */

static int read_flags(void **state) {
    (void)state;
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL) {
        return 0;
    }
    char line[sizeof flags];
    while (flags[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "flags", 5) == 0 && colon != NULL) {
            snprintf(flags, sizeof flags, "%.*s ", (int)strcspn(colon + 1, "\n"), colon + 1);
        }
    }
    fclose(file);
    return 0;
}

static int has_flag(const char *name) {
    char word[40];
    snprintf(word, sizeof word, " %s ", name);
    return strstr(flags, word) != NULL;
}

static void cpu_vector_instructions_are_those_of_proc_cpuinfo(void **state) {
    (void)state;
    if (flags[0] == '\0') {
        print_message("/proc/cpuinfo has no line of flags: not compared\n");
        skip();
    }
    assert_int_equal(attni_cpu_has(ATTNI_ISA_AVX2), has_flag("avx2") && has_flag("fma"));
    assert_int_equal(attni_cpu_has(ATTNI_ISA_AVX512), has_flag("avx512f") && has_flag("avx512dq") &&
                                                          has_flag("avx512bw") &&
                                                          has_flag("avx512vl") && has_flag("fma"));
}
#else
static int read_flags(void **state) {
    (void)state;
    return 0;
}

static void cpu_vector_instructions_of_others_are_absent(void **state) {
    (void)state;
    assert_false(attni_cpu_has(ATTNI_ISA_AVX2));
    assert_false(attni_cpu_has(ATTNI_ISA_AVX512));
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_every_one_has_the_baseline),
#if defined(__x86_64__)
        cmocka_unit_test(cpu_vector_instructions_are_those_of_proc_cpuinfo),
#else
        cmocka_unit_test(cpu_vector_instructions_of_others_are_absent),
#endif
    };
    return cmocka_run_group_tests_name("cpu_features", tests, read_flags, NULL);
}
