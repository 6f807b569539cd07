/* SPDX-License-Identifier: BSD-3-Clause
 *
 * program_exit.h: the exit codes of the programs, and the one way they say that something went
 * wrong.
 */
#ifndef ATTN_CLI_PROGRAM_EXIT_H
#define ATTN_CLI_PROGRAM_EXIT_H

/* Functions of the program that can fail return one of these; EXIT_DONE is 0. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_COMPUTATION = 1, /* the library refused, memory ran out or output could not be written */
    EXIT_USAGE = 2,       /* the command line */
    EXIT_DIFFERENCE = 3,  /* --expect: a difference above --tolerance */
    EXIT_BAD_FILE = 4     /* a file is missing, broken or does not hold what was asked for */
};

/* What error lines begin with: "attn" unless main sets another name. */
extern const char *program_name;

/* Prints "<program_name>: message" as one line of printable characters on stderr and returns
 * exit_code. */
__attribute__((format(printf, 2, 3))) int program_fail(int exit_code, const char *format, ...);
#ifdef ATTENTION_ANALYSIS /* An analyser sees one source, and here which code it is. */
#define program_fail(exit_code, ...) ((void)program_fail(exit_code, __VA_ARGS__), (exit_code))
#endif

/* program_fail for a call of the library that has just failed: its status and detail, after `what`
 * ("forward"). */
int program_fail_library(const char *what, int status);

#endif
