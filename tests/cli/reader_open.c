/* SPDX-License-Identifier: BSD-3-Clause
 *
 * reader_open.c: opening files in the reader's tests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "reader_open.h"
#include "scratch_files.h"

safetensors_file *reader_open(const char *path, char *error, size_t error_bytes) {
    char line[1000];
    safetensors_file *file = NULL;
    int result = safetensors_open(path, &file, line, sizeof line);
    if (result == 0) {
        assert_non_null(file);
        return file;
    }
    assert_null(file);
    assert_memory_equal(line, path, strlen(path));
    assert_memory_equal(line + strlen(path), ": ", 2);
    for (const char *byte = line; *byte != '\0'; byte++) {
        assert_true((unsigned char)*byte >= 0x20);
    }
    (void)snprintf(error, error_bytes, "%s", line + strlen(path) + 2);
    return NULL;
}

safetensors_file *reader_open_header(void **state, const char *header, size_t data_bytes,
                                     char *error, size_t error_bytes) {
    char path[SCRATCH_PATH_BYTES];
    scratch_write_safetensors(scratch_path(state, "file.safetensors", path), header, data_bytes);
    return reader_open(path, error, error_bytes);
}
