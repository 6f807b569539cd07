/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_replace.c: write, sync, rename.
 */
#include "file_replace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int report_errno(const char *path, int number, char *error, size_t error_bytes) {
    (void)snprintf(error, error_bytes, "%s: %s", path, strerror(number));
    return -1;
}

/* A name in the folder of `path` that nobody can have prepared a file under. 0, or an errno. */
static int make_temporary_path(const char *path, char *temporary_path, size_t bytes) {
    const char *slash = strrchr(path, '/');
    uint64_t number = 0;
    if (getentropy(&number, sizeof number) != 0) {
        return errno;
    }
    (void)snprintf(temporary_path, bytes, "%.*s.attn-%016llx.part",
                   slash == NULL ? 0 : (int)(slash - path + 1), path, (unsigned long long)number);
    return 0;
}

/* Creates the temporary file, under another name if there is one of this. 0, or an errno. */
static int create_temporary(file_replacement *replacement, size_t bytes, mode_t mode) {
    enum { MOST_TRIES = 16 };
    int number = EEXIST;
    for (int i = 0; i < MOST_TRIES && number == EEXIST; i++) {
        number = make_temporary_path(replacement->path, replacement->temporary_path, bytes);
        if (number == 0) {
            replacement->descriptor =
                open(replacement->temporary_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
            number = replacement->descriptor < 0 ? errno : 0;
        }
    }
    return number;
}

/* Gives the temporary file the owner, the group and the mode of the file it will replace, as far as
 * this process may. Where it may not give the group, the new one gets no more than everybody; a
 * file of another owner is not executed in the name of this one. 0, or an errno. */
static int take_over_rights(int descriptor, const struct stat *replaced) {
    mode_t mode = replaced->st_mode & (mode_t)07777;
    int has_owner = fchown(descriptor, replaced->st_uid, (gid_t)-1) == 0;
    int has_group = fchown(descriptor, (uid_t)-1, replaced->st_gid) == 0;
    if (!has_group) {
        mode_t everybody = mode & S_IRWXO;
        mode = (mode & ~(mode_t)S_IRWXG) | (mode & everybody << 3);
    }
    if (!has_owner || !has_group) {
        mode &= (mode_t)0777;
    }
    return fchmod(descriptor, mode) == 0 ? 0 : errno;
}

int file_replace_begin(file_replacement *replacement, const char *path, char *error,
                       size_t error_bytes) {
    struct stat replaced;
    int is_there = stat(path, &replaced) == 0;
    if (is_there && !S_ISREG(replaced.st_mode)) {
        (void)snprintf(error, error_bytes, "%s: exists and is not a regular file", path);
        return -1;
    }
    size_t bytes = strlen(path) + 32;
    *replacement =
        (file_replacement){.path = path, .temporary_path = malloc(bytes), .descriptor = -1};
    if (replacement->temporary_path == NULL) {
        return report_errno(path, ENOMEM, error, error_bytes);
    }
    int number = create_temporary(replacement, bytes, is_there ? 0600 : 0666);
    if (number == 0 && is_there) {
        number = take_over_rights(replacement->descriptor, &replaced);
    }
    if (number == 0) {
        return 0;
    }
    if (replacement->descriptor >= 0) {
        (void)close(replacement->descriptor);
        (void)unlink(replacement->temporary_path);
    }
    free(replacement->temporary_path);
    return report_errno(path, number, error, error_bytes);
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
