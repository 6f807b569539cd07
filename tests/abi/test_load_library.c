/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_load_library.c: loads the library with dlopen, calls it and closes it, again and again: the
 * process neither crashes nor grows. Linked with nothing but the C library.
 *
 * Usage: test_load_library <library> <most KiB to grow>; 0 KiB: sizes are not compared.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attention/attention.h>

enum { ROUNDS = 1000, ROUNDS_TO_SETTLE = 20, SERIES = 3, COPIES = 20, ROWS = 64, COLS = 32 };

/* dlsym returns an object pointer for functions too. */
static void look_up(void *library, const char *name, void *function_pointer) {
    void *address = dlsym(library, name);
    if (address == NULL) {
        fprintf(stderr, "%s is not found: %s\n", name, dlerror());
        exit(1);
    }
    memcpy(function_pointer, &address, sizeof address);
}

/* Attention of equal rows, which is the rows again, in a context of two threads. */
static bool call_library(void *library) {
    attn_status (*create)(const attn_context_config *, attn_context **);
    void (*destroy)(attn_context *);
    attn_status (*init)(attn_tensor *, void *, int32_t, int32_t, const int64_t *);
    attn_status (*attend)(attn_context *, const attn_tensor *, const attn_tensor *,
                          const attn_tensor *, const attn_sdpa_params *, const attn_tensor *,
                          void *, size_t);
    look_up(library, "attn_context_create", &create);
    look_up(library, "attn_context_destroy", &destroy);
    look_up(library, "attn_tensor_init", &init);
    look_up(library, "attn_sdpa", &attend);
    static double input[4 * ROWS * COLS];
    static double result[4 * ROWS * COLS];
    for (int i = 0; i < 4 * ROWS * COLS; ++i) {
        input[i] = 0.5;
        result[i] = 0;
    }
    const attn_context_config settings = {.struct_size = sizeof settings, .num_threads = 2};
    const int64_t shape[] = {4, ROWS, COLS};
    attn_context *context = NULL;
    attn_tensor x;
    attn_tensor y;
    bool works = create(&settings, &context) == ATTN_OK &&
                 init(&x, input, ATTN_DTYPE_FLOAT64, 3, shape) == ATTN_OK &&
                 init(&y, result, ATTN_DTYPE_FLOAT64, 3, shape) == ATTN_OK &&
                 attend(context, &x, &x, &x, NULL, &y, NULL, 0) == ATTN_OK;
    destroy(context);
    for (int i = 0; i < 4 * ROWS * COLS; ++i) {
        works = works && result[i] > 0.5 - 1e-12 && result[i] < 0.5 + 1e-12;
    }
    return works;
}

typedef struct process_size {
    int threads;
    long resident_kib;
    long virtual_kib;
} process_size;

static process_size measure_once(void) {
    process_size size = {0};
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *one = tasks != NULL ? readdir(tasks) : NULL; one != NULL;
         one = readdir(tasks)) {
        size.threads += one->d_name[0] != '.';
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
    FILE *status = fopen("/proc/self/status", "r");
    char line[200];
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            size.resident_kib = strtol(line + 6, NULL, 10);
        } else if (strncmp(line, "VmSize:", 7) == 0) {
            size.virtual_kib = strtol(line + 7, NULL, 10);
        }
    }
    if (status != NULL) {
        fclose(status);
    }
    return size;
}

/* A joined thread is listed for a moment longer. */
static process_size measure(int threads_expected) {
    process_size size = measure_once();
    for (int i = 0; i < 2000 && size.threads > threads_expected && threads_expected > 0; ++i) {
        usleep(1000);
        size = measure_once();
    }
    return size;
}

static void *load(const char *path) {
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* One round of loading, calling and closing. */
static void visit(const char *path) {
    void *library = load(path);
    if (library == NULL || !call_library(library) || dlclose(library) != 0) {
        fprintf(stderr, "%s: it could not be loaded, called and closed\n", path);
        exit(1);
    }
}

static void copy_file(const char *from, const char *to) {
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    char block[4096];
    size_t bytes = in != NULL && out != NULL ? fread(block, 1, sizeof block, in) : 0;
    bool works = bytes > 0;
    for (; works && bytes > 0; bytes = fread(block, 1, sizeof block, in)) {
        works = fwrite(block, 1, bytes, out) == bytes;
    }
    if (!works || fclose(in) != 0 || fclose(out) != 0) {
        fprintf(stderr, "%s: could not be copied to %s\n", from, to);
        exit(1);
    }
}

/* Copies under other names are libraries of their own, beside each other in one process. None is
 * ever unloaded. */
static void visit_copies(const char *path) {
    char folder[] = "/tmp/attention_copies_XXXXXX";
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        exit(1);
    }
    for (int i = 0; i < COPIES; ++i) {
        char copy[100];
        snprintf(copy, sizeof copy, "%s/libattention_copy_%d.so", folder, i);
        copy_file(path, copy);
        for (int round = 0; round < ROUNDS / COPIES; ++round) {
            visit(copy);
        }
        unlink(copy);
    }
    rmdir(folder);
}

/* One series of rounds. What leaks grows in every one. OpenBLAS's threads reserve 128 MiB of
 * addresses each when they first run, without any call, so that one series may see that. */
static bool process_grows(const char *path, long slack) {
    const process_size before = measure(0);
    for (int round = 0; round < ROUNDS; ++round) {
        visit(path);
    }
    const process_size after = measure(before.threads);
    printf(
        "loading: %d rounds, threads %d to %d, resident %ld to %ld KiB, virtual %ld to %ld KiB\n",
        ROUNDS, before.threads, after.threads, before.resident_kib, after.resident_kib,
        before.virtual_kib, after.virtual_kib);
    return after.threads > before.threads ||
           (slack > 0 && (after.resident_kib > before.resident_kib + slack ||
                          after.virtual_kib > before.virtual_kib + slack));
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: test_load_library <library> <most KiB to grow>\n");
        return 2;
    }
    const long slack = strtol(argv[2], NULL, 10);
    for (int round = 0; round < ROUNDS_TO_SETTLE; ++round) {
        visit(argv[1]);
    }
    bool grew = true;
    for (int series = 0; series < SERIES && grew; ++series) {
        grew = process_grows(argv[1], slack);
    }
    visit_copies(argv[1]);
    printf("copies: %d beside it, %d rounds each\n", COPIES, ROUNDS / COPIES);
    return grew;
}
