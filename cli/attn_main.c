/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attn_main.c: entry of the attn program: the table of commands.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <attention/version.h>

#include "option_parsing.h"
#include "program_commands.h"
#include "program_exit.h"

static const struct command {
    const char *name;
    int (*run)(int count, char *const *arguments);
    const char *const *help;
} commands[] = {
    {"info", command_info, help_info},
    {"selftest", command_selftest, help_selftest},
    {"run", command_run, help_run},
    {"heatmap", command_heatmap, help_heatmap},
};

/* If the caller closed a standard stream, a file opened later would take its number and be written
 * over. This occupies it, with what cannot be read or written, so that using it is noticed. */
static void occupy_standard_streams(void) {
    for (int descriptor = 0; descriptor <= 2; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0) {
            (void)open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY);
        }
    }
}

static int print_help(const char *const *lines) {
    for (; *lines != NULL; lines++) {
        puts(*lines);
    }
    return EXIT_DONE;
}

static int run_command(int count, char *const *arguments) {
    if (count < 1) {
        print_help(help_program);
        return program_fail(EXIT_USAGE, "a command is missing");
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(arguments[0], commands[i].name) == 0) {
            return options_ask_for_help(count - 1, arguments + 1)
                       ? print_help(commands[i].help)
                       : commands[i].run(count - 1, arguments + 1);
        }
    }
    if (strcmp(arguments[0], "--version") == 0) {
        printf("attn %s\n", attn_version_string());
        return EXIT_DONE;
    }
    if (options_ask_for_help(1, arguments) || strcmp(arguments[0], "help") == 0) {
        return print_help(help_program);
    }
    return program_fail(EXIT_USAGE, "unknown command '%s'; attn --help lists them", arguments[0]);
}

/* What was printed counts only if it arrived: a full disk or a closed stream is an error. */
static int close_output(int exit_code) {
    int had_error = ferror(stdout);
    errno = 0;
    if (fflush(stdout) == 0 && !had_error) {
        return exit_code;
    }
    return program_fail(EXIT_COMPUTATION, "standard output: %s",
                        errno != 0 ? strerror(errno) : "write error");
}

int main(int argc, char **argv) {
    occupy_standard_streams();
    /* Every help fits in it: its one write is close_output's, which knows why it failed. */
    static char printed[1 << 16];
    (void)setvbuf(stdout, printed, _IOFBF, sizeof printed);
    return close_output(run_command(argc - 1, argv + 1));
}
