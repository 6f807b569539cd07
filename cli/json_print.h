/* SPDX-License-Identifier: BSD-3-Clause
 *
 * json_print.h: how --json ends.
 */
#ifndef ATTN_CLI_JSON_PRINT_H
#define ATTN_CLI_JSON_PRINT_H

#include <cjson/cJSON.h>

/* Prints the object as one line of valid UTF-8 without control characters, unless making it failed,
 * and deletes it. Returns EXIT_DONE, or
 * EXIT_COMPUTATION after an error line: all that can fail is memory. */
int print_json_line(cJSON *root, int failed);

#endif
