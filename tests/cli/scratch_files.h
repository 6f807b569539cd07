/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch_files.h: a directory for the files of one test, and .safetensors files made from text.
 * Failures fail the running test.
 */
#ifndef ATTENTION_TESTS_CLI_SCRATCH_FILES_H
#define ATTENTION_TESTS_CLI_SCRATCH_FILES_H

#include <stddef.h>

enum { SCRATCH_PATH_BYTES = 256 };

/* CMocka fixtures: *state is the directory's path; teardown removes it with all files in it. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* Writes "directory/name" to `path`, of SCRATCH_PATH_BYTES, and returns it. */
const char *scratch_path(void **state, const char *name, char *path);

void scratch_write(const char *path, const void *data, size_t bytes);

/* The whole file, zero-terminated, to be freed; *bytes without the zero. */
char *scratch_read(const char *path, size_t *bytes);

/* The number of files in the directory. */
int scratch_count(void **state);

/* Writes a .safetensors file of that header text and data_bytes bytes of data: 0, 1, 2, ... */
void scratch_write_safetensors(const char *path, const char *header, size_t data_bytes);

#endif
