/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_replace.h: output files appear whole or not at all: they are written under another name
 * beside their place, one that cannot be foreseen, and renamed. A new file's mode is the umask's; one
 * that is replaced hands on its mode, and its owner and group where the process may give them.
 */
#ifndef ATTN_CLI_FILE_REPLACE_H
#define ATTN_CLI_FILE_REPLACE_H

#include <stddef.h>

typedef struct file_replacement {
    const char *path; /* the caller's, kept until commit or abandon */
    char *temporary_path;
    int descriptor;
    int write_error; /* errno of the first failed write, 0 if none */
} file_replacement;

/* Creates the temporary file. 0, or -1 with one line in `error` that names the path; then nothing
 * is left to undo. */
int file_replace_begin(file_replacement *replacement, const char *path, char *error,
                       size_t error_bytes);

/* Appends bytes. Errors are kept and reported by commit; returns -1 after one so that a writer may
 * stop early. */
int file_replace_write(file_replacement *replacement, const void *data, size_t bytes);

/* Puts the file in its place. 0, or -1 with one line in `error`; either way the replacement is
 * finished and nothing is left behind. */
int file_replace_commit(file_replacement *replacement, char *error, size_t error_bytes);

/* Gives up: removes the temporary file. */
void file_replace_abandon(file_replacement *replacement);

#endif
