/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_commands.h: the commands of attn-bench and its help. A command gets the arguments after its
 * name and returns an exit code.
 */
#ifndef ATTN_BENCH_COMMANDS_H
#define ATTN_BENCH_COMMANDS_H

#include "bench_options.h"

int bench_command_sdpa(int count, char *const *arguments);
int bench_command_mha(int count, char *const *arguments);
int bench_command_grow(int count, char *const *arguments);
int bench_command_limits(int count, char *const *arguments);

/* Measures what `options`, not yet complete, ask for, and prints a line per contestant. Returns an
 * exit code. */
int bench_measure(const bench_options *options);

/* Lines, ended by NULL. */
extern const char *const bench_help[];

#endif
