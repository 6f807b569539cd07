/* SPDX-License-Identifier: BSD-3-Clause
 *
 * program_commands.h: the commands of attn and their help. A command gets the arguments after its
 * name and returns an exit code.
 */
#ifndef ATTN_CLI_PROGRAM_COMMANDS_H
#define ATTN_CLI_PROGRAM_COMMANDS_H

int command_info(int count, char *const *arguments);
int command_selftest(int count, char *const *arguments);
int command_run(int count, char *const *arguments);
int command_heatmap(int count, char *const *arguments);

/* Help texts: lines, ended by NULL. */
extern const char *const help_program[];
extern const char *const help_info[];
extern const char *const help_selftest[];
extern const char *const help_run[];
extern const char *const help_heatmap[];

#endif
