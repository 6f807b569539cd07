/* SPDX-License-Identifier: BSD-3-Clause
 *
 * json_print.c: see json_print.h.
 */
#include "json_print.h"

#include <stdio.h>

#include "program_exit.h"

int print_json_line(cJSON *root, int failed) {
    char *text = failed ? NULL : cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL) {
        return program_fail(EXIT_COMPUTATION, "--json: out of memory");
    }
    printf("%s\n", text);
    cJSON_free(text);
    return EXIT_DONE;
}
