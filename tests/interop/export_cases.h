/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_cases.h: the folder that cases are exported to.
 */
#ifndef INTEROP_EXPORT_CASES_H
#define INTEROP_EXPORT_CASES_H

#include <stdio.h>

typedef struct export_folder {
    const char *path;
    FILE *list; /* the names of its cases */
} export_folder;

/* Opens a new case of the folder, listed; ends the program if it cannot. */
FILE *export_open(const export_folder *folder, const char *name);
void export_close(FILE *file, const char *name);

/* Prints a line and ends the program. */
_Noreturn void export_fail(const char *what, const char *name, const char *why);

/* Cases of the options that PyTorch does not have. */
void export_made_sdpa_cases(const export_folder *folder);
void export_made_mha_cases(const export_folder *folder);

#endif
