/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_many_copies.c: twenty plugins, each with its own copy of the static library inside, in one
 * process at the same time. Each computes and fails, on threads that all of them share.
 *
 * Usage: test_many_copies <plugin>
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "loaded_plugin.h"

enum { COPIES = 20 };

static char folder[] = "/tmp/attention_copies_XXXXXX";

static void copy_file(const char *from, const char *to) {
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    char block[4096];
    size_t bytes = in != NULL && out != NULL ? fread(block, 1, sizeof block, in) : 0;
    int works = bytes > 0;
    for (; works && bytes > 0; bytes = fread(block, 1, sizeof block, in)) {
        works = fwrite(block, 1, bytes, out) == bytes;
    }
    if (!works || fclose(in) != 0 || fclose(out) != 0) {
        fprintf(stderr, "%s: could not be copied to %s\n", from, to);
        exit(1);
    }
}

/* A copy under another name is a library of its own; it stays one when the name is gone. */
static loaded_plugin load_copy(const char *path, int number) {
    char copy[100];
    snprintf(copy, sizeof copy, "%s/plugin_%d.so", folder, number);
    copy_file(path, copy);
    const loaded_plugin plugin = load_plugin(copy);
    unlink(copy);
    return plugin;
}

int main(int argc, char **argv) {
    if (argc != 2 || mkdtemp(folder) == NULL) {
        fprintf(stderr, "usage: test_many_copies <plugin>\n");
        return 2;
    }
    setenv("ATTN_NUM_THREADS", "2", 1);
    loaded_plugin plugins[COPIES];
    for (int i = 0; i < COPIES; ++i) {
        plugins[i] = load_copy(argv[1], i);
    }
    rmdir(folder);
    for (int i = 0; i < COPIES; ++i) {
        for (int j = 0; j < i; ++j) {
            expect_zero(plugins[i].fail == plugins[j].fail, "two copies that are one", i);
        }
        expect_zero(plugins[i].fail(), "a failure", i);
        expect_zero(plugins[i].compute(), "a computation", i);
    }
    printf("copies: %d in one process\n", COPIES);
    return 0;
}
