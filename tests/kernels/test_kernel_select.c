/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_kernel_select.c: which sets of kernels are offered, in which order, and under which names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/context.h>
#include <attention/tensor.h>
#include <attention/version.h>

#include "base/cpu_features.h"
#include "kernels/kernel_select.h"

struct named_isa {
    const char *name;
    attni_isa isa;
};

static bool runs_here(const char *name, size_t length) {
    static const struct named_isa names[] = {{"avx512_bf16", ATTNI_ISA_AVX512_BF16},
                                             {"avx512", ATTNI_ISA_AVX512},
                                             {"avx2", ATTNI_ISA_AVX2},
                                             {"neon_bf16", ATTNI_ISA_NEON_BF16},
                                             {"neon", ATTNI_ISA_NEON},
                                             {"baseline", ATTNI_ISA_BASELINE}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        if (strlen(names[i].name) == length && strncmp(names[i].name, name, length) == 0) {
            return attni_cpu_has(names[i].isa);
        }
    }
    fail_msg("\"%.*s\" is no known set of kernels", (int)length, name);
    return false;
}

/* Where a name of the list of those that run here is offered: pairs that are not fast stand behind
 * the set that has none. */
static int32_t place_of(int32_t number, bool starts_with_pairs) {
    return starts_with_pairs && number < 2 && !attni_cpu_pairs_fast() ? 1 - number : number;
}

/* The build info lists what is compiled in, best first; of these the CPU's are offered, in that
 * order. */
static void sets_are_those_compiled_in_that_this_cpu_runs(void **state) {
    (void)state;
    const char *name = strstr(attn_build_info(), "; kernels ") + strlen("; kernels ");
    int32_t index = 0;
    bool starts_with_pairs = false;
    while (*name != '\0') {
        const size_t length = strcspn(name, " ");
        if (runs_here(name, length)) {
            starts_with_pairs |=
                index == 0 && length > 5 && memcmp(name + length - 5, "_bf16", 5) == 0;
            const int32_t place = place_of(index, starts_with_pairs);
            const attni_kernel_set *set = attni_kernel_set_at(place);
            assert_non_null(set);
            assert_int_equal(set->pairs != NULL,
                             length > 5 && strcmp(set->name + length - 5, "_bf16") == 0);
            assert_int_equal(strlen(set->name), length);
            assert_memory_equal(set->name, name, length);
            assert_string_equal(attn_kernels_name(place), set->name);
            print_message("kernels: %s\n", set->name);
            ++index;
        }
        name += length + strspn(name + length, " ");
    }
    assert_true(index > 0);
    assert_null(attni_kernel_set_at(index));
    assert_null(attn_kernels_name(index));
}

static void set_at_an_index_outside_is_null(void **state) {
    (void)state;
    static const int32_t indices[] = {-1, INT32_MIN, 100, INT32_MAX};
    for (size_t i = 0; i < sizeof indices / sizeof indices[0]; ++i) {
        assert_null(attni_kernel_set_at(indices[i]));
        assert_null(attn_kernels_name(indices[i]));
    }
}

static void set_is_found_by_name_or_the_best_without(void **state) {
    (void)state;
    assert_ptr_equal(attni_kernel_set_find(NULL), attni_kernel_set_at(0));
    for (int32_t i = 0; attni_kernel_set_at(i) != NULL; ++i) {
        assert_ptr_equal(attni_kernel_set_find(attni_kernel_set_at(i)->name),
                         attni_kernel_set_at(i));
    }
    static const char *const unknown[] = {"", "avx", "AVX2", "baseline ", "fused"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; ++i) {
        assert_null(attni_kernel_set_find(unknown[i]));
    }
}

static void assert_complete(const attni_row_kernels *kernels) {
    assert_true(kernels->max != NULL && kernels->has_nan != NULL && kernels->is_zero != NULL &&
                kernels->exp_sum != NULL && kernels->exp != NULL);
    assert_true(kernels->scale != NULL && kernels->softcap != NULL && kernels->alibi != NULL &&
                kernels->sigmoid != NULL);
    assert_true(kernels->add_bias != NULL && kernels->exclude != NULL && kernels->hide != NULL &&
                kernels->accumulate != NULL);
}

static void set_has_tables_of_its_own_for_both_types(void **state) {
    (void)state;
    for (int32_t i = 0; attni_kernel_set_at(i) != NULL; ++i) {
        const attni_kernel_set *set = attni_kernel_set_at(i);
        assert_ptr_equal(attni_kernels_of(set, ATTN_DTYPE_FLOAT32), set->float32);
        assert_ptr_equal(attni_kernels_of(set, ATTN_DTYPE_FLOAT64), set->float64);
        assert_ptr_not_equal(set->float32, set->float64);
        assert_complete(set->float32);
        assert_complete(set->float64);
        assert_ptr_equal(attni_feature_kernels_of(set, ATTN_DTYPE_FLOAT32), set->features_float32);
        assert_ptr_equal(attni_feature_kernels_of(set, ATTN_DTYPE_FLOAT64), set->features_float64);
        assert_ptr_not_equal(set->features_float32, set->features_float64);
        for (int32_t j = 0; j < i; ++j) {
            /* A set may differ from another in its pairs alone. */
            const attni_kernel_set *other = attni_kernel_set_at(j);
            const bool is_twin =
                (other->pairs != NULL) != (set->pairs != NULL) && other->tiles == set->tiles;
            assert_true(is_twin || other->float32 != set->float32);
            assert_true(is_twin || other->float64 != set->float64);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_those_compiled_in_that_this_cpu_runs),
        cmocka_unit_test(set_at_an_index_outside_is_null),
        cmocka_unit_test(set_is_found_by_name_or_the_best_without),
        cmocka_unit_test(set_has_tables_of_its_own_for_both_types),
    };
    return cmocka_run_group_tests_name("kernel_select", tests, NULL, NULL);
}
