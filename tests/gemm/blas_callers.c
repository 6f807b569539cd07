/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_callers.c: a program for scripts/blas-matrix, which runs it with BLAS builds that this
 * machine does not have installed.
 *
 * Usage: blas_callers library      4 threads call libattention, whose products BLAS computes: first
 *                                  all in float32, then all in float64
 *        blas_callers bare <BLAS>  4 threads call that BLAS themselves, without a lock
 *        blas_callers refused      BLAS cannot be used: the calls that need it must say so, in a
 *                                  line
 * The last line is "<kind>: N threads, N calls, N mismatches", or the line of the refusal. Ends
 * with 0 if there was no mismatch, or a proper refusal.
 */
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

enum { THREADS = 4, CALLS = 500, HEADS = 2, ROWS = 100, COLS = 48, SIZES = 3 };
enum { VALUES = HEADS * ROWS * COLS, RESULT_VALUES = HEADS * ROWS * ROWS };

typedef void (*sgemm_function)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                               float alpha, const float *a, int lda, const float *b, int ldb,
                               float beta, float *c, int ldc);

static const int64_t lengths[SIZES] = {5, 37, ROWS};
static attn_context *context; /* NULL: the bare BLAS is called */
static sgemm_function sgemm;
static int32_t dtype = ATTN_DTYPE_FLOAT32;
static float input[VALUES];
static double wide_input[VALUES];

/* A call's results, of either type. */
typedef union results {
    float single[RESULT_VALUES];
    double wide[RESULT_VALUES];
} results;

static results expected[SIZES];
static atomic_int mismatches;
static pthread_barrier_t start;

static attn_status attend(int64_t rows, results *out) {
    const int64_t shape[] = {HEADS, rows, COLS};
    attn_tensor x;
    attn_tensor y;
    void *in = dtype == ATTN_DTYPE_FLOAT32 ? (void *)input : (void *)wide_input;
    attn_status status = attn_tensor_init(&x, in, dtype, 3, shape);
    status = status != ATTN_OK ? status : attn_tensor_init(&y, out, dtype, 3, shape);
    return status != ATTN_OK ? status : attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0);
}

/* The first values of the result are compared. */
static bool run_one(int size, results *out) {
    const int64_t rows = lengths[size];
    if (context != NULL) {
        return attend(rows, out) == ATTN_OK;
    }
    sgemm(101, 111, 112, (int)rows, (int)rows, COLS, 1.0F, input, COLS, input + COLS, COLS, 0.0F,
          out->single, (int)rows);
    return true;
}

static bool is_close(int size, const results *out) {
    const int64_t count = lengths[size] * (context != NULL ? HEADS * COLS : lengths[size]);
    for (int64_t i = 0; i < count; ++i) {
        const double difference = dtype == ATTN_DTYPE_FLOAT32
                                      ? out->single[i] - expected[size].single[i]
                                      : out->wide[i] - expected[size].wide[i];
        if (!(fabs(difference) <= 1e-4)) {
            return false;
        }
    }
    return true;
}

static void *call_again_and_again(void *unused) {
    results *out = malloc(sizeof *out);
    pthread_barrier_wait(&start);
    for (int i = 0; i < CALLS && out != NULL; ++i) {
        memset(out, 0, sizeof *out);
        const int size = i % SIZES;
        atomic_fetch_add(&mismatches, !run_one(size, out) || !is_close(size, out));
    }
    atomic_fetch_add(&mismatches, out == NULL);
    free(out);
    return unused;
}

static int run_threads(const char *kind) {
    for (int size = 0; size < SIZES; ++size) {
        if (!run_one(size, &expected[size])) {
            printf("%s\n", attn_last_error());
            return 1;
        }
    }
    pthread_t threads[THREADS];
    pthread_barrier_init(&start, NULL, THREADS);
    for (int i = 0; i < THREADS; ++i) {
        if (pthread_create(&threads[i], NULL, call_again_and_again, NULL) != 0) {
            return 1;
        }
    }
    for (int i = 0; i < THREADS; ++i) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&start);
    printf("%s: %d threads, %d calls, %d mismatches\n", kind, THREADS, THREADS * CALLS,
           atomic_load(&mismatches));
    return atomic_load(&mismatches) != 0;
}

static int expect_refusal(void) {
    static results out;
    const attn_status status = attend(ROWS, &out);
    const char *line = attn_last_error();
    printf("%s: %s\n", attn_status_name(status), line);
    return status != ATTN_ERROR_BLAS || line[0] == '\0' || strchr(line, '\n') != NULL;
}

int main(int argc, char **argv) {
    const char *kind = argc >= 2 ? argv[1] : "";
    for (int i = 0; i < VALUES; ++i) {
        input[i] = sinf(0.37F * (float)i);
        wide_input[i] = input[i];
    }
    if (strcmp(kind, "bare") == 0 && argc == 3) {
        void *blas = dlopen(argv[2], RTLD_NOW);
        void *address = blas != NULL ? dlsym(blas, "cblas_sgemm") : NULL;
        memcpy(&sgemm, &address, sizeof sgemm);
        return address != NULL ? run_threads(kind) : 2;
    }
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = 1,
                                          .engine = ATTN_ENGINE_BLAS,
                                          .gemm = ATTN_GEMM_BLAS};
    if (attn_context_create(&settings, &context) != ATTN_OK) {
        printf("%s\n", attn_last_error());
        return 2;
    }
    int outcome = 2;
    if (strcmp(kind, "library") == 0) {
        outcome = run_threads("library, float32");
        dtype = ATTN_DTYPE_FLOAT64;
        outcome |= run_threads("library, float64");
    } else if (strcmp(kind, "refused") == 0) {
        outcome = expect_refusal();
    }
    attn_context_destroy(context);
    return outcome;
}
