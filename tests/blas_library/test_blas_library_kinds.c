/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_blas_library_kinds.c: blas_library.c beside made-up libraries. The program is built once for
 * each kind: an OpenBLAS whose answers the test chooses, one too old to say whether it has threads,
 * a BLIS, a library that has no function to ask, and a build that has no BLAS.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "blas_library/blas_library.h"

#if defined(BLAS_IS_openblas) || defined(BLAS_IS_old_openblas) || defined(BLAS_IS_reference)
static char config[80] = "OpenBLAS 9.9.9 DYNAMIC_ARCH NO_AFFINITY Any MAX_THREADS=64";

char *made_up_openblas_get_config_here(void);

char *made_up_openblas_get_config_here(void) {
    return config;
}
#endif

#if defined(BLAS_IS_openblas) || defined(BLAS_IS_reference)
static int parallel;

int made_up_openblas_get_parallel_here(void);

int made_up_openblas_get_parallel_here(void) {
    return parallel;
}
#endif

#if !defined(BLAS_IS_reference)
void made_up_cblas_sgemm_here(void);
void made_up_cblas_dgemm_here(void);

void made_up_cblas_sgemm_here(void) {
}

void made_up_cblas_dgemm_here(void) {
}
#endif

#if defined(BLAS_IS_blis)
char *bli_info_get_version_str(void);

char *bli_info_get_version_str(void) {
    static char version[] = "0.9.0";
    return version;
}
#endif

#if defined(BLAS_IS_openblas)
static void openblas_without_threads_is_entered_alone(void **state) {
    (void)state;
    parallel = 0;
    assert_int_equal(attni_blas_max_callers(), 1);
}

/* 1: its own threads, 2: OpenMP's. */
static void openblas_with_threads_takes_64_callers(void **state) {
    (void)state;
    for (parallel = 1; parallel <= 2; ++parallel) {
        assert_int_equal(attni_blas_max_callers(), 64);
    }
}

static void openblas_describes_itself(void **state) {
    (void)state;
    assert_true(attni_blas_present());
    assert_false(attni_blas_may_stray_in_float32());
    assert_false(attni_blas_may_lose_nan());
    assert_ptr_equal(attni_blas_description(), config);
}

static void openblas_with_64_bit_integers_cannot_be_used(void **state) {
    (void)state;
    assert_null(attni_blas_problem());
    config[9] = '\0';
    assert_null(attni_blas_problem());
    static const char wide[] = "OpenBLAS 9.9.9 USE64BITINT DYNAMIC_ARCH";
    for (size_t i = 0; i < sizeof wide; ++i) {
        config[i] = wide[i];
    }
    assert_string_equal(attni_blas_problem(),
                        "it is an ILP64 build (64-bit integers); an LP64 build is needed");
}
#else

struct answers {
    bool present;
    int callers;
    bool may_stray;
    const char *description;
};

#if defined(BLAS_IS_blis)
static const struct answers expected = {true, 64, true, "BLIS"};
#elif defined(BLAS_IS_old_openblas)
static const struct answers expected = {
    true, 1, false, "OpenBLAS 9.9.9 DYNAMIC_ARCH NO_AFFINITY Any MAX_THREADS=64"};
#elif defined(BLAS_IS_unknown)
static const struct answers expected = {true, 1, true, "a BLAS that does not tell its name"};
#else
static const struct answers expected = {false, 1, false, "none"};
#endif

static void library_gets_the_answers_of_its_kind(void **state) {
    (void)state;
#if defined(BLAS_IS_reference)
    /* Functions of a BLAS that happens to be in the process are none of ours. */
    parallel = 1;
#endif
    assert_int_equal(attni_blas_present(), expected.present);
    assert_int_equal(attni_blas_max_callers(), expected.callers);
    assert_int_equal(attni_blas_may_stray_in_float32(), expected.may_stray);
    assert_int_equal(attni_blas_may_lose_nan(), expected.may_stray);
    assert_string_equal(attni_blas_description(), expected.description);
    assert_null(attni_blas_problem());
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#if defined(BLAS_IS_openblas)
        cmocka_unit_test(openblas_without_threads_is_entered_alone),
        cmocka_unit_test(openblas_with_threads_takes_64_callers),
        cmocka_unit_test(openblas_describes_itself),
        cmocka_unit_test(openblas_with_64_bit_integers_cannot_be_used),
#else
        cmocka_unit_test(library_gets_the_answers_of_its_kind),
#endif
    };
    return cmocka_run_group_tests_name("blas_library_kinds", tests, NULL, NULL);
}
