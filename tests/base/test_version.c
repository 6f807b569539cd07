/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_version.c: every place that tells the version tells the same one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "blas_library/blas_library.h"

static void version_number_is_that_of_the_headers(void **state) {
    (void)state;
    assert_int_equal(attn_version(),
                     ATTN_VERSION_MAJOR * 1000000 + ATTN_VERSION_MINOR * 1000 + ATTN_VERSION_PATCH);
    assert_true(ATTN_VERSION_MINOR < 1000 && ATTN_VERSION_PATCH < 1000);
}

static void version_string_is_that_of_the_headers(void **state) {
    (void)state;
    char expected[40];
    snprintf(expected, sizeof expected, "%d.%d.%d", ATTN_VERSION_MAJOR, ATTN_VERSION_MINOR,
             ATTN_VERSION_PATCH);
    assert_string_equal(attn_version_string(), expected);
}

/* "libattention VERSION; COMPILER; blas NAME; kernels NAME NAME": four fields in one line. */
static void build_info_has_its_four_fields(void **state) {
    (void)state;
    char start[60];
    snprintf(start, sizeof start, "libattention %s; ", attn_version_string());
    const char *info = attn_build_info();
    assert_memory_equal(info, start, strlen(start));
    assert_null(strchr(info, '\n'));
    const char *compiler = info + strlen(start);
    assert_true(strncmp(compiler, "gcc ", 4) == 0 || strncmp(compiler, "clang ", 6) == 0);
    const char *blas = strstr(compiler, "; blas ");
    assert_non_null(blas);
    assert_non_null(strstr(blas, "; kernels "));
    assert_int_equal(strncmp(blas, "; blas reference;", 17) == 0, !attni_blas_present());
}

static void build_info_names_every_set_of_kernels(void **state) {
    (void)state;
    char names[200];
    snprintf(names, sizeof names, "%s ", strstr(attn_build_info(), "; kernels ") + 9);
    assert_non_null(attn_kernels_name(0));
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        char name[60];
        snprintf(name, sizeof name, " %s ", attn_kernels_name(i));
        if (strstr(names, name) == NULL) {
            fail_msg("\"%s\" is missing in \"%s\"", attn_kernels_name(i), attn_build_info());
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_number_is_that_of_the_headers),
        cmocka_unit_test(version_string_is_that_of_the_headers),
        cmocka_unit_test(build_info_has_its_four_fields),
        cmocka_unit_test(build_info_names_every_set_of_kernels),
    };
    return cmocka_run_group_tests_name("version", tests, NULL, NULL);
}
