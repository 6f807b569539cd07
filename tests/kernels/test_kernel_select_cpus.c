/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_kernel_select_cpus.c: which sets of kernels are offered on CPUs that this one is not. Linked
 * so that the selection asks this file what the CPU has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/context.h>

#include "base/cpu_features.h"
#include "kernels/kernel_select.h"

static unsigned sets_of_cpu; /* bit i: attni_isa i */

bool __wrap_attni_cpu_has(attni_isa isa);
bool __wrap_attni_cpu_has(attni_isa isa) {
    return (sets_of_cpu >> isa & 1U) != 0;
}

/* Every set compiled in that the CPU has is offered once, and is found by its name. */
static void sets_are_offered_if_the_cpu_has_them(void **state) {
    (void)state;
    static const struct {
        const char *name;
        attni_isa isa;
    } isas[] = {{"avx512", ATTNI_ISA_AVX512},
                {"avx2", ATTNI_ISA_AVX2},
                {"neon", ATTNI_ISA_NEON},
                {"baseline", ATTNI_ISA_BASELINE}};
    enum { NUM_ISAS = sizeof isas / sizeof isas[0] };
    sets_of_cpu = ~0U;
    bool is_compiled[NUM_ISAS];
    for (size_t i = 0; i < NUM_ISAS; ++i) {
        is_compiled[i] = attni_kernel_set_find(isas[i].name) != NULL;
    }
    for (unsigned sets = 0; sets < 1U << NUM_ISAS; ++sets) {
        int32_t offered = 0;
        sets_of_cpu = sets;
        for (size_t i = 0; i < NUM_ISAS; ++i) {
            const bool expected = is_compiled[i] && (sets >> isas[i].isa & 1U) != 0;
            const attni_kernel_set *found = attni_kernel_set_find(isas[i].name);
            assert_int_equal(found != NULL, expected);
            if (expected) {
                assert_ptr_equal(attni_kernel_set_at(offered), found);
                assert_string_equal(attn_kernels_name(offered), isas[i].name);
                ++offered;
            }
        }
        assert_null(attni_kernel_set_at(offered));
        assert_null(attn_kernels_name(offered));
        assert_ptr_equal(attni_kernel_set_find(NULL), attni_kernel_set_at(0));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_offered_if_the_cpu_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
