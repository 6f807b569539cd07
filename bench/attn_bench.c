/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attn_bench.c: entry of the attn-bench program: the table of commands.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <attention/version.h>

#include "bench_commands.h"
#include "option_parsing.h"
#include "program_exit.h"

static const struct command {
    const char *name;
    int (*run)(int count, char *const *arguments);
} commands[] = {
    {"sdpa", bench_command_sdpa},
    {"mha", bench_command_mha},
    {"grow", bench_command_grow},
    {"limits", bench_command_limits},
};

static int print_help(void) {
    for (const char *const *line = bench_help; *line != NULL; line++) {
        (void)puts(*line);
    }
    return EXIT_DONE;
}

static int run_command(int count, char *const *arguments) {
    if (count < 1) {
        return program_fail(EXIT_USAGE,
                            "expected sdpa, mha, grow or limits; --help shows how to call");
    }
    if (options_ask_for_help(count, arguments) || strcmp(arguments[0], "help") == 0) {
        return print_help();
    }
    if (strcmp(arguments[0], "--version") == 0) {
        (void)printf("attn-bench %s\n", attn_version_string());
        return EXIT_DONE;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(arguments[0], commands[i].name) == 0) {
            return commands[i].run(count - 1, arguments + 1);
        }
    }
    return program_fail(EXIT_USAGE, "unknown command '%s'; expected sdpa, mha, grow or limits",
                        arguments[0]);
}

/* A line counts only if it arrived. */
static int close_output(int exit_code) {
    const int had_error = ferror(stdout);
    errno = 0;
    if (fflush(stdout) == 0 && !had_error) {
        return exit_code;
    }
    return program_fail(EXIT_COMPUTATION, "standard output: %s",
                        errno != 0 ? strerror(errno) : "write error");
}

int main(int argc, char **argv) {
    program_name = "attn-bench";
    return close_output(run_command(argc - 1, argv + 1));
}
