/* SPDX-License-Identifier: BSD-3-Clause
 *
 * replay_files.c: runs a fuzz target on files: the seeds and every crash of the past; then, if asked
 * to, for some seconds on random inputs, which at full speed reach where a slow fuzzer's do not.
 * Usage: fuzz_TARGET_replay FOLDER [SECONDS FIRST_INPUT]
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fuzz_bytes.h"
#include "support/random.h"

enum { LARGEST_FILE = 1 << 16, RANDOM_BYTES = 128 };

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

/* The input is the same for the same number, so that one that fails can be had again. */
static void run_random(uint64_t number) {
    uint8_t bytes[RANDOM_BYTES];
    random_state random = random_seeded(number);
    for (size_t i = 0; i < sizeof bytes; ++i) {
        bytes[i] = (uint8_t)random_bits(&random);
    }
    LLVMFuzzerTestOneInput(bytes, sizeof bytes);
}

static void run_for(double seconds, uint64_t first) {
    const time_t end = time(NULL) + (time_t)seconds;
    uint64_t number = first;
    while (time(NULL) < end) {
        run_random(number++);
    }
    printf("inputs %llu to %llu\n", (unsigned long long)first, (unsigned long long)number - 1);
}

int main(int argc, char **argv) {
    DIR *folder = argc == 2 || argc == 4 ? opendir(argv[1]) : NULL;
    int count = 0;
    if (folder == NULL) {
        fprintf(stderr, "usage: replay FOLDER [SECONDS FIRST_INPUT]\n");
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
    if (argc == 4) {
        run_for(strtod(argv[2], NULL), strtoull(argv[3], NULL, 10));
    }
    printf("%d files\n", count);
    return count == 0;
}
