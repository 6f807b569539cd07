/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_interop_cases.c: the exported cases, read back and run: what wrappers in other languages are
 * asked to do can be done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "case_reader.h"
#include "case_run.h"

enum { FEWEST_CASES = 60, FEWEST_ERRORS = 5 };

static const char *folder;

static int run_file(const char *name, int *num_errors) {
    char path[1024];
    char problem[512];
    interop_case made;
    snprintf(path, sizeof path, "%s/%s.case", folder, name);
    int result = case_read(&made, path, problem, sizeof problem);
    if (result == 0) {
        result = case_run(&made, problem, sizeof problem);
        *num_errors += made.error_code != 0;
    }
    if (result != 0) {
        printf("%s: %s\n", name, problem);
    }
    case_destroy(&made);
    return result != 0;
}

static void every_exported_case_gives_what_it_expects(void **state) {
    (void)state;
    char path[1024];
    char name[256];
    snprintf(path, sizeof path, "%s/cases.txt", folder);
    FILE *list = fopen(path, "r");
    assert_non_null(list);
    int num_cases = 0;
    int num_errors = 0;
    int failures = 0;
    while (fgets(name, sizeof name, list) != NULL) {
        name[strcspn(name, "\n")] = '\0';
        failures += run_file(name, &num_errors);
        num_cases++;
    }
    fclose(list);
    printf("c: %d cases, %d errors, %d failures\n", num_cases - num_errors, num_errors, failures);
    assert_int_equal(failures, 0);
    assert_true(num_cases - num_errors >= FEWEST_CASES && num_errors >= FEWEST_ERRORS);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_exported_case_gives_what_it_expects),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: test_interop_cases <folder of cases>\n");
        return 2;
    }
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
