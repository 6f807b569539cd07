/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_blas_library.c: what we say of the BLAS this program really runs with, against what the
 * dynamic linker finds of it.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "blas_library/blas_library.h"

/* dlsym returns an object pointer for functions too. */
static void look_up(const char *name, void *function_pointer) {
    void *address = dlsym(RTLD_DEFAULT, name);
    memcpy(function_pointer, &address, sizeof address);
}

static char *(*openblas_config(void))(void) {
    char *(*function)(void);
    look_up(BLAS_SYMBOL_PREFIX "openblas_get_config" BLAS_SYMBOL_SUFFIX, &function);
    return function;
}

static int (*openblas_parallel(void))(void) {
    int (*function)(void);
    look_up(BLAS_SYMBOL_PREFIX "openblas_get_parallel" BLAS_SYMBOL_SUFFIX, &function);
    return function;
}

static bool is_blis(void) {
    return dlsym(RTLD_DEFAULT, "bli_info_get_version_str") != NULL;
}

static void description_is_what_the_library_says(void **state) {
    (void)state;
    const char *expected = "none";
    if (attni_blas_present()) {
        expected = openblas_config() != NULL ? openblas_config()()
                   : is_blis()               ? "BLIS"
                                             : "a BLAS that does not tell its name";
    }
    print_message("BLAS: %s\n", attni_blas_description());
    assert_string_equal(attni_blas_description(), expected);
}

static void callers_are_limited_as_the_library_needs(void **state) {
    (void)state;
    int expected = 1;
    if (attni_blas_present() && openblas_config() != NULL) {
        expected = openblas_parallel() != NULL && openblas_parallel()() != 0 ? 64 : 1;
    } else if (attni_blas_present() && is_blis()) {
        expected = 64;
    }
    assert_int_equal(attni_blas_max_callers(), expected);
}

static void problem_is_none_in_a_working_build(void **state) {
    (void)state;
    assert_null(attni_blas_problem());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(description_is_what_the_library_says),
        cmocka_unit_test(callers_are_limited_as_the_library_needs),
        cmocka_unit_test(problem_is_none_in_a_working_build),
    };
    return cmocka_run_group_tests_name("blas_library", tests, NULL, NULL);
}
