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
static bool pairs_are_fast;

bool __wrap_attni_cpu_has(attni_isa isa);
bool __wrap_attni_cpu_has(attni_isa isa) {
    return (sets_of_cpu >> isa & 1U) != 0;
}

bool __wrap_attni_cpu_pairs_fast(void);
bool __wrap_attni_cpu_pairs_fast(void) {
    return pairs_are_fast;
}

typedef struct named_isa {
    const char *name;
    attni_isa isa;
} named_isa;

enum { NUM_ISAS = 6 };

/* In the order in which they are offered. */
static const named_isa with_fast_pairs[NUM_ISAS] = {{"avx512_bf16", ATTNI_ISA_AVX512_BF16},
                                                    {"avx512", ATTNI_ISA_AVX512},
                                                    {"avx2", ATTNI_ISA_AVX2},
                                                    {"neon_bf16", ATTNI_ISA_NEON_BF16},
                                                    {"neon", ATTNI_ISA_NEON},
                                                    {"baseline", ATTNI_ISA_BASELINE}};
static const named_isa with_slow_pairs[NUM_ISAS] = {
    {"avx512", ATTNI_ISA_AVX512},       {"avx512_bf16", ATTNI_ISA_AVX512_BF16},
    {"avx2", ATTNI_ISA_AVX2},           {"neon", ATTNI_ISA_NEON},
    {"neon_bf16", ATTNI_ISA_NEON_BF16}, {"baseline", ATTNI_ISA_BASELINE}};

/* Every set compiled in that the CPU has is offered once, and is found by its name. */
static void check_sets(const named_isa *isas) {
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

static void sets_are_offered_if_the_cpu_has_them(void **state) {
    (void)state;
    pairs_are_fast = true;
    check_sets(with_fast_pairs);
    pairs_are_fast = false;
    check_sets(with_slow_pairs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_offered_if_the_cpu_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
