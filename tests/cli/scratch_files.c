/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch_files.c: temporary directories and files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "scratch_files.h"

int scratch_setup(void **state) {
    const char *parent = getenv("TMPDIR");
    char *directory = malloc(SCRATCH_PATH_BYTES);
    if (directory == NULL) {
        return -1;
    }
    (void)snprintf(directory, SCRATCH_PATH_BYTES, "%.100s/attn-test-XXXXXX",
                   parent != NULL ? parent : P_tmpdir);
    *state = directory;
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int is_file(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

int scratch_teardown(void **state) {
    char path[2 * SCRATCH_PATH_BYTES];
    DIR *directory = opendir(*state);
    for (struct dirent *entry = NULL; directory != NULL && (entry = readdir(directory)) != NULL;) {
        (void)snprintf(path, sizeof path, "%s/%s", (const char *)*state, entry->d_name);
        if (is_file(entry) && unlink(path) != 0) {
            (void)rmdir(path);
        }
    }
    if (directory != NULL) {
        (void)closedir(directory);
    }
    int result = rmdir(*state);
    free(*state);
    return result;
}

int scratch_count(void **state) {
    int count = 0;
    DIR *directory = opendir(*state);
    assert_non_null(directory);
    for (struct dirent *entry = NULL; (entry = readdir(directory)) != NULL;) {
        count += is_file(entry);
    }
    (void)closedir(directory);
    return count;
}

const char *scratch_path(void **state, const char *name, char *path) {
    (void)snprintf(path, SCRATCH_PATH_BYTES, "%.150s/%.100s", (const char *)*state, name);
    return path;
}

/* An existing file is overwritten and cut, not emptied first: file systems write a file that was
 * emptied to the disk at once. */
void scratch_write(const char *path, const void *data, size_t bytes) {
    int descriptor = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, data, bytes), bytes);
    assert_int_equal(ftruncate(descriptor, (off_t)bytes), 0);
    assert_int_equal(close(descriptor), 0);
}

char *scratch_read(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long length = ftell(file);
    assert_true(length >= 0);
    rewind(file);
    char *data = calloc((size_t)length + 1, 1);
    assert_non_null(data);
    *bytes = fread(data, 1, (size_t)length, file);
    assert_int_equal(*bytes, length);
    assert_int_equal(fclose(file), 0);
    return data;
}

void scratch_write_safetensors(const char *path, const char *header, size_t data_bytes) {
    size_t header_bytes = strlen(header);
    unsigned char *file = calloc(8 + header_bytes + data_bytes, 1);
    assert_non_null(file);
    for (size_t i = 0; i < 8; i++) {
        file[i] = (unsigned char)(header_bytes >> 8 * i & 0xff);
    }
    memcpy(file + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++) {
        file[8 + header_bytes + i] = (unsigned char)(i & 0xff);
    }
    scratch_write(path, file, 8 + header_bytes + data_bytes);
    free(file);
}
