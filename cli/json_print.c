/* SPDX-License-Identifier: BSD-3-Clause
 *
 * json_print.c: see json_print.h.
 */
#include "json_print.h"

#include <stdio.h>
#include <string.h>

#include "printable_text.h"
#include "program_exit.h"

/* The JSON library escapes control characters below U+0020 alone. All others stand inside strings,
 * as do the bytes of file names that are no UTF-8, for which U+FFFD is printed. */
static void print_escaped(const char *text) {
    size_t bytes = strlen(text);
    while (bytes > 0) {
        size_t length = utf8_well_formed_bytes(text, bytes);
        if (length == 0) {
            printf("\\ufffd");
            length = 1;
        } else if (utf8_is_control(text)) {
            printf("\\u%04x", (unsigned)(unsigned char)text[length - 1]);
        } else {
            printf("%.*s", (int)length, text);
        }
        text += length;
        bytes -= length;
    }
    printf("\n");
}

int print_json_line(cJSON *root, int failed) {
    char *text = failed ? NULL : cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL) {
        return program_fail(EXIT_COMPUTATION, "--json: out of memory");
    }
    print_escaped(text);
    cJSON_free(text);
    return EXIT_DONE;
}
