/* SPDX-License-Identifier: BSD-3-Clause
 *
 * program_run.c: spawning and catching.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include "program_run.h"
#include "scratch_files.h"

extern char **environ;

const char *program_path;
const char *fixtures_path;

enum { MAX_ARGUMENTS = 60, MAX_LINE = 4000 };

/* Replaces %D and %F and splits at spaces, in `line`. */
static void split_command_line(void **state, const char *command_line, char *line,
                               char **arguments) {
    size_t used = 0;
    int count = 0;
    for (const char *byte = command_line; *byte != '\0'; byte++) {
        const char *inserted = byte[0] == '%' && byte[1] == 'D'   ? *state
                               : byte[0] == '%' && byte[1] == 'F' ? fixtures_path
                                                                  : NULL;
        if (inserted != NULL) {
            used += (size_t)snprintf(line + used, MAX_LINE - used, "%s", inserted);
            byte++;
        } else {
            line[used++] = *byte;
        }
        assert_true(used + 1 < MAX_LINE);
    }
    line[used] = '\0';
    static char name[] = "attn";
    arguments[count++] = name;
    for (char *argument = strtok(line, " "); argument != NULL; argument = strtok(NULL, " ")) {
        assert_true(count + 1 < MAX_ARGUMENTS);
        arguments[count++] = argument;
    }
    arguments[count] = NULL;
}

static int spawn_and_wait(char **arguments, const char *output_path, const char *error_path) {
    pid_t child = 0;
    int status = 0;
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    if (output_path == NULL) {
        assert_int_equal(posix_spawn_file_actions_addclose(&actions, 1), 0);
    } else {
        assert_int_equal(posix_spawn_file_actions_addopen(&actions, 1, output_path,
                                                          O_WRONLY | O_CREAT | O_TRUNC, 0600),
                         0);
    }
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 2, error_path,
                                                      O_WRONLY | O_CREAT | O_TRUNC, 0600),
                     0);
    assert_int_equal(posix_spawn(&child, program_path, &actions, NULL, arguments, environ), 0);
    assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

program_result program_run_to(void **state, const char *command_line, const char *output_path) {
    char line[MAX_LINE];
    char *arguments[MAX_ARGUMENTS];
    char error_path[SCRATCH_PATH_BYTES];
    size_t bytes = 0;
    program_result result;
    split_command_line(state, command_line, line, arguments);
    scratch_path(state, "standard_error", error_path);
    result.exit_code = spawn_and_wait(arguments, output_path, error_path);
    result.error = scratch_read(error_path, &bytes);
    result.output = calloc(1, 1);
    return result;
}

program_result program_run(void **state, const char *command_line) {
    char output_path[SCRATCH_PATH_BYTES];
    size_t bytes = 0;
    program_result result =
        program_run_to(state, command_line, scratch_path(state, "standard_output", output_path));
    free(result.output);
    result.output = scratch_read(output_path, &bytes);
    return result;
}

void program_result_free(program_result *result) {
    free(result->output);
    free(result->error);
}

void assert_program(void **state, const char *command_line, int exit_code, const char *text) {
    program_result result = program_run(state, command_line);
    int is_quiet = exit_code == 0 || exit_code == 3;
    const char *line_end = strchr(result.error, '\n');
    int is_error_fine = is_quiet ? result.error[0] == '\0'
                                 : strncmp(result.error, "attn: ", 6) == 0 && line_end != NULL &&
                                       line_end[1] == '\0';
    if (result.exit_code != exit_code || !is_error_fine ||
        strstr(is_quiet ? result.output : result.error, text) == NULL) {
        fail_msg("attn %s\nexpected exit code %d and '%s', got exit code %d\nstandard output: "
                 "%s\nstandard error: %s",
                 command_line, exit_code, text, result.exit_code, result.output, result.error);
    }
    program_result_free(&result);
}
