/* SPDX-License-Identifier: BSD-3-Clause
 *
 * replay_files.c: runs a fuzz target on files: the seeds and every crash of the past.
 * Usage: fuzz_TARGET_replay FOLDER
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz_bytes.h"

enum { LARGEST_FILE = 1 << 16 };

static int replay(const char *path) {
    static uint8_t bytes[LARGEST_FILE];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s cannot be read\n", path);
        return -1;
    }
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
    return 0;
}

int main(int argc, char **argv) {
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    int count = 0;
    if (folder == NULL) {
        fprintf(stderr, "usage: replay FOLDER\n");
        return 2;
    }
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        if (entry->d_name[0] != '.') {
            if (replay(path) != 0) {
                return 1;
            }
            count++;
        }
    }
    closedir(folder);
    printf("%d files\n", count);
    return count == 0;
}
