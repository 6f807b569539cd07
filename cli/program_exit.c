/* SPDX-License-Identifier: BSD-3-Clause
 *
 * program_exit.c: error lines.
 */
#include "program_exit.h"

#include <stdarg.h>
#include <stdio.h>

#include <attention/status.h>

#include "printable_text.h"

const char *program_name = "attn";

#undef program_fail
int program_fail(int exit_code, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    make_printable(message);
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: %s\n", program_name, message);
    return exit_code;
}

int program_fail_library(const char *what, int status) {
    const char *detail = attn_last_error();
    return program_fail(EXIT_COMPUTATION, "%s: %s (%s)", what,
                        detail[0] != '\0' ? detail : attn_status_text(status),
                        attn_status_name(status));
}
