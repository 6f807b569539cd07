/* SPDX-License-Identifier: BSD-3-Clause
 *
 * program_run.h: runs the attn program and catches what it says.
 */
#ifndef ATTENTION_TESTS_CLI_PROGRAM_RUN_H
#define ATTENTION_TESTS_CLI_PROGRAM_RUN_H

typedef struct program_result {
    int exit_code; /* -1 if a signal ended it */
    char *output;  /* standard output and error, to be freed by program_result_free */
    char *error;
} program_result;

/* The program that program_run runs; set once by main. */
extern const char *program_path;

/* Runs it with a command line split at spaces; "%D" in it is the scratch directory, "%F" the
 * fixtures' (set below). */
program_result program_run(void **state, const char *command_line);

/* As program_run, with standard output going to a file, /dev/full for instance, or closed (NULL);
 * result.output is "". */
program_result program_run_to(void **state, const char *command_line, const char *output_path);

extern const char *fixtures_path;

void program_result_free(program_result *result);

/* Runs, and fails the test unless the exit code is as given, standard error is "" (for 0) or one
 * line "attn: ...", and the text is found in standard output (exit code 0 or 3) or in the error
 * line. */
void assert_program(void **state, const char *command_line, int exit_code, const char *text);

#endif
