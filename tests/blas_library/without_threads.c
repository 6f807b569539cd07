/* SPDX-License-Identifier: BSD-3-Clause
 *
 * without_threads.c: a program that is granted no thread computes without a BLAS in the process,
 * for an OpenBLAS would end it; ATTN_GEMM_BLAS is refused in words. With OPENBLAS_NUM_THREADS=1 it
 * needs no threads, and computes float64.
 *
 * pthread_create is this program's own, for every library in the process.
 *
 * Usage: without_threads <native | blas>: who computes float64
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

enum { ROWS = 64, COLS = 32, VALUES = ROWS * COLS };

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
    (void)thread, (void)attributes, (void)start, (void)argument;
    return EAGAIN;
}

static bool has_blas(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[5000];
    bool found = false;
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        const char *name = strrchr(line, '/');
        found = found || (name != NULL && strstr(name, "blas") != NULL);
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return found;
}

/* On one OpenBLAS starts no thread. */
static int num_cpus(void) {
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 2;
}

static attn_status attend(attn_context *context, int32_t dtype, void *input, void *result) {
    const int64_t shape[] = {ROWS, COLS};
    attn_tensor x;
    attn_tensor y;
    attn_status status = attn_tensor_init(&x, input, dtype, 2, shape);
    status = status != ATTN_OK ? status : attn_tensor_init(&y, result, dtype, 2, shape);
    return status != ATTN_OK ? status : attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0);
}

static void expect(bool is_so, const char *what) {
    if (!is_so) {
        fprintf(stderr, "not so: %s (%s)\n", what, attn_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    static float narrow[VALUES];
    static float narrow_result[VALUES];
    static double wide[VALUES];
    static double result[VALUES];
    const bool takes_blas = argc == 2 && strcmp(argv[1], "blas") == 0;
    const attn_context_config demand = {.struct_size = sizeof demand, .gemm = ATTN_GEMM_BLAS};
    attn_context *context = NULL;
    if (argc != 2 || (!takes_blas && strcmp(argv[1], "native") != 0)) {
        fprintf(stderr, "usage: without_threads <native | blas>\n");
        return 2;
    }
    for (int i = 0; i < VALUES; ++i) {
        narrow[i] = 1;
        wide[i] = 1;
    }
    expect(attend(NULL, ATTN_DTYPE_FLOAT32, narrow, narrow_result) == ATTN_OK, "float32");
    expect(narrow_result[VALUES - 1] == 1, "float32 is right");
    expect(!has_blas(), "no BLAS is in the process");
    expect(attend(NULL, ATTN_DTYPE_FLOAT64, wide, result) == ATTN_OK, "float64");
    expect(result[VALUES - 1] == 1, "float64 is right");
    expect(has_blas() == (takes_blas || num_cpus() == 1), "a BLAS is there if it may be");
    expect(attn_context_create(&demand, &context) == ATTN_OK, "a context that demands BLAS");
    result[0] = 7;
    const attn_status status = attend(context, ATTN_DTYPE_FLOAT64, wide, result);
    expect(status == (has_blas() ? ATTN_OK : ATTN_ERROR_BLAS), "BLAS is demanded");
    if (!has_blas()) {
        expect(strstr(attn_last_error(), "OPENBLAS_NUM_THREADS=1") != NULL, "a way is said");
        expect(result[0] == 7, "the output is untouched");
    }
    attn_context_destroy(context);
    return 0;
}
