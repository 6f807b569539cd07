/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_ranks.c: what scripts/bench-mpi fits a model to: latency and bandwidth between two ranks,
 * multiply-adds of a rank while the others compute too, and calls over all ranks, each the least of
 * some repeats. Rank 0 prints lines of "name value"; of a call "call <scheme> <placement> <causal>
 * <rows of the whole> <seconds> <seconds that the library predicts by what was measured>".
 * Usage: bench_ranks <repeats> <rows of the whole>...
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>
#include <attention/mpi.h>

enum { HEADS = 8, KEY_HEADS = 2, FEATURES = 128 };

static int this_rank, num_ranks, repeats;

static void fail(const char *what) {
    (void)fprintf(stderr, "rank %d: %s: %s\n", this_rank, what, attn_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static float *numbers(int64_t count) {
    float *const data = malloc((size_t)count * sizeof *data);
    if (data == NULL) {
        fail("no memory");
        exit(1);
    }
    for (int64_t i = 0; i < count; ++i) {
        data[i] = (float)((i * 7919 + this_rank) % 1009) / 1009.0f - 0.5f;
    }
    return data;
}

/* The slowest rank's time from a common start. */
static double seconds_of_all(double start) {
    double mine = MPI_Wtime() - start, slowest;
    MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return slowest;
}

static double begin(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    return MPI_Wtime();
}

/* One way of a message between ranks 0 and 1, there and back a number of times. */
static double message_seconds(int bytes) {
    enum { TURNS = 20 };
    char *const data = (char *)numbers(bytes / (int)sizeof(float) + 1);
    double least = DBL_MAX;
    for (int repeat = 0; repeat < 3 * repeats; ++repeat) {
        const double start = begin();
        for (int turn = 0; turn < 2 * TURNS && this_rank < 2; ++turn) {
            if (turn % 2 == this_rank) {
                MPI_Send(data, bytes, MPI_BYTE, 1 - this_rank, 0, MPI_COMM_WORLD);
            } else {
                MPI_Recv(data, bytes, MPI_BYTE, 1 - this_rank, 0, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
            }
        }
        least = fmin(least, seconds_of_all(start) / (2 * TURNS));
    }
    free(data);
    return least;
}

/* The tensors of one rank. */
typedef struct rank_tensors {
    float *data[4];
    attn_tensor query, key, value, output;
} rank_tensors;

static void make_tensors(int64_t rows, rank_tensors *made) {
    attn_tensor *const views[] = {&made->query, &made->key, &made->value, &made->output};
    for (int i = 0; i < 4; ++i) {
        const int64_t shape[] = {i == 1 || i == 2 ? KEY_HEADS : HEADS, rows, FEATURES};
        made->data[i] = numbers(shape[0] * rows * FEATURES);
        if (attn_tensor_init(views[i], made->data[i], ATTN_DTYPE_FLOAT32, 3, shape) != ATTN_OK) {
            fail("attn_tensor_init");
        }
    }
}

static void free_tensors(rank_tensors *made) {
    for (int i = 0; i < 4; ++i) {
        free(made->data[i]);
    }
}

/* Every rank computes at the same time, so that they share memory and clock as in a call. */
static double products_per_second(attn_context *context, int64_t rows) {
    rank_tensors tensors;
    double least = DBL_MAX;
    const attn_sdpa_params params = {.struct_size = sizeof params, .enable_gqa = 1};
    make_tensors(rows, &tensors);
    for (int repeat = 0; repeat < repeats; ++repeat) {
        const double start = begin();
        if (attn_sdpa(context, &tensors.query, &tensors.key, &tensors.value, &params,
                      &tensors.output, NULL, 0) != ATTN_OK) {
            fail("attn_sdpa");
        }
        least = fmin(least, seconds_of_all(start));
    }
    free_tensors(&tensors);
    return (double)HEADS * (double)rows * (double)rows * 2 * FEATURES / least;
}

static void measure_call(attn_context *context, int32_t scheme, int32_t placement,
                         int32_t is_causal, int64_t rows, attn_mpi_params params) {
    rank_tensors tensors;
    double least = DBL_MAX;
    attn_mpi_report report = {.struct_size = sizeof report};
    const attn_sdpa_params options = {
        .struct_size = sizeof options, .enable_gqa = 1, .is_causal = is_causal};
    params.scheme = scheme;
    params.placement = placement;
    params.report = &report;
    make_tensors(rows / num_ranks, &tensors);
    for (int repeat = 0; repeat < repeats; ++repeat) {
        const double start = begin();
        if (attn_mpi_sdpa(context, MPI_COMM_WORLD, &tensors.query, &tensors.key, &tensors.value,
                          &options, &params, &tensors.output, NULL, 0) != ATTN_OK) {
            fail("attn_mpi_sdpa");
        }
        least = fmin(least, seconds_of_all(start));
    }
    if (this_rank == 0) {
        printf("call %s %s %d %lld %.9g %.9g\n", scheme == ATTN_MPI_SCHEME_RING ? "ring" : "heads",
               placement == ATTN_MPI_PLACEMENT_ZIGZAG ? "zigzag" : "contiguous", (int)is_causal,
               (long long)rows, least,
               scheme == ATTN_MPI_SCHEME_RING ? report.ring_seconds : report.heads_seconds);
        (void)fflush(stdout);
    }
    free_tensors(&tensors);
}

int main(int argc, char **argv) {
    int level;
    attn_context *context;
    attn_mpi_params params = {.struct_size = sizeof params};
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 1};
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SINGLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &this_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
    if (argc < 3 || attn_context_create(&config, &context) != ATTN_OK) {
        fail("usage: bench_ranks <repeats> <rows>...");
        return 2;
    }
    repeats = (int)strtol(argv[1], NULL, 10);
    params.products_per_second =
        products_per_second(context, strtoll(argv[2], NULL, 10) / num_ranks);
    if (num_ranks > 1) {
        const int large = 8 << 20;
        params.latency_seconds = message_seconds(8);
        params.bytes_per_second = large / (message_seconds(large) - params.latency_seconds);
    }
    if (this_rank == 0) {
        printf("heads %d\nkey_heads %d\nfeatures %d\nranks %d\n", HEADS, KEY_HEADS, FEATURES,
               num_ranks);
        printf("products_per_second %.9g\nlatency_seconds %.9g\nbytes_per_second %.9g\n",
               params.products_per_second, params.latency_seconds, params.bytes_per_second);
    }
    for (int i = 2; i < argc; ++i) {
        const int64_t rows = strtoll(argv[i], NULL, 10);
        measure_call(context, ATTN_MPI_SCHEME_RING, ATTN_MPI_PLACEMENT_CONTIGUOUS, 0, rows, params);
        measure_call(context, ATTN_MPI_SCHEME_RING, ATTN_MPI_PLACEMENT_CONTIGUOUS, 1, rows, params);
        measure_call(context, ATTN_MPI_SCHEME_RING, ATTN_MPI_PLACEMENT_ZIGZAG, 1, rows, params);
        measure_call(context, ATTN_MPI_SCHEME_HEADS, ATTN_MPI_PLACEMENT_CONTIGUOUS, 0, rows,
                     params);
        measure_call(context, ATTN_MPI_SCHEME_HEADS, ATTN_MPI_PLACEMENT_CONTIGUOUS, 1, rows,
                     params);
    }
    attn_context_destroy(context);
    MPI_Finalize();
    return 0;
}
