/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_replace.c: write, sync, rename.
 */
#include "file_replace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int report_errno(const char *path, int number, char *error, size_t error_bytes) {
    (void)snprintf(error, error_bytes, "%s: %s", path, strerror(number));
    return -1;
}

int file_replace_begin(file_replacement *replacement, const char *path, char *error,
                       size_t error_bytes) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        (void)snprintf(error, error_bytes, "%s: exists and is not a regular file", path);
        return -1;
    }
    size_t bytes = strlen(path) + 32;
    *replacement =
        (file_replacement){.path = path, .temporary_path = malloc(bytes), .descriptor = -1};
    if (replacement->temporary_path == NULL) {
        return report_errno(path, ENOMEM, error, error_bytes);
    }
    (void)snprintf(replacement->temporary_path, bytes, "%s.%ld.part", path, (long)getpid());
    replacement->descriptor = open(replacement->temporary_path,
                                   O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (replacement->descriptor < 0) {
        int number = errno;
        free(replacement->temporary_path);
        return report_errno(path, number, error, error_bytes);
    }
    return 0;
}

int file_replace_write(file_replacement *replacement, const void *data, size_t bytes) {
    const char *position = data;
    while (bytes > 0 && replacement->write_error == 0) {
        ssize_t written = write(replacement->descriptor, position, bytes);
        if (written >= 0) {
            position += written;
            bytes -= (size_t)written;
        } else if (errno != EINTR) {
            replacement->write_error = errno;
        }
    }
    return replacement->write_error == 0 ? 0 : -1;
}

int file_replace_commit(file_replacement *replacement, char *error, size_t error_bytes) {
    int number = replacement->write_error;
    if (number == 0 && fsync(replacement->descriptor) != 0) {
        number = errno;
    }
    if (close(replacement->descriptor) != 0 && number == 0) {
        number = errno;
    }
    if (number == 0 && rename(replacement->temporary_path, replacement->path) != 0) {
        number = errno;
    }
    if (number != 0) {
        (void)unlink(replacement->temporary_path);
    }
    free(replacement->temporary_path);
    return number == 0 ? 0 : report_errno(replacement->path, number, error, error_bytes);
}

void file_replace_abandon(file_replacement *replacement) {
    (void)close(replacement->descriptor);
    (void)unlink(replacement->temporary_path);
    free(replacement->temporary_path);
}
