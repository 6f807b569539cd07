/* SPDX-License-Identifier: BSD-3-Clause
 *
 * long_sequence.c: attention over a sequence of which no rank has more than its own share, under
 * causality. Rank 0 says what is run, what it should cost and what it took; then every rank checks
 * some of its rows against sums in float64.
 *
 *     mpicc.openmpi long_sequence.c $(pkg-config --cflags --libs attention-mpi-openmpi) -lm
 *     mpiexec -n 4 ./a.out 65536
 *
 * Usage: long_sequence [<rows of the whole>]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>
#include <attention/mpi.h>

enum { HEADS = 8, KEY_HEADS = 2, FEATURES = 64, CHECKED_ROWS = 3 };

/* Row `row` of the whole is the same on whichever rank it lies. */
static float element(int which, int head, int64_t row, int feature) {
    return sinf((float)(1 + which) * 0.7f * (float)(row % 1013) +
                0.3f * (float)(feature * (head + 1)));
}

/* In the zigzag placement the first half of a rank's rows stands at stretch `rank` of 2 ranks, the
 * second half at the stretch as far from the end, so that all ranks have the same work. */
static int64_t row_of_whole(int64_t own_row, int64_t own_rows, int rank, int num_ranks) {
    const int64_t half = own_rows / 2;
    return own_row < half ? rank * half + own_row
                          : (2 * num_ranks - 1 - rank) * half + own_row - half;
}

static float *fill(int which, int heads, int64_t rows, int rank, int num_ranks) {
    float *const data = malloc((size_t)(heads * rows * FEATURES) * sizeof *data);
    for (int64_t i = 0; data != NULL && i < heads * rows * FEATURES; ++i) {
        const int64_t row = row_of_whole(i / FEATURES % rows, rows, rank, num_ranks);
        data[i] = element(which, (int)(i / FEATURES / rows), row, (int)(i % FEATURES));
    }
    return data;
}

/* Feature 0 of one row of one head, in float64. */
static double exact(int head, int64_t row) {
    const int key_head = head / (HEADS / KEY_HEADS);
    double sum = 0, weighted = 0;
    for (int64_t j = 0; j <= row; ++j) {
        double score = 0;
        for (int f = 0; f < FEATURES; ++f) {
            score += (double)element(0, head, row, f) * element(1, key_head, j, f);
        }
        const double weight = exp(score / sqrt(FEATURES) - 8); /* no score is above 8 */
        sum += weight;
        weighted += weight * element(2, key_head, j, 0);
    }
    return weighted / sum;
}

static int attend(int64_t rows, int rank, int num_ranks, const float *data[3], float *output) {
    attn_tensor query, key, value, result;
    const int64_t shape[] = {HEADS, rows, FEATURES}, key_shape[] = {KEY_HEADS, rows, FEATURES};
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1, .enable_gqa = 1};
    attn_mpi_report report = {.struct_size = sizeof report};
    const attn_mpi_params mpi_params = {.struct_size = sizeof mpi_params,
                                        .placement = ATTN_MPI_PLACEMENT_ZIGZAG};
    if (attn_tensor_init(&query, (void *)data[0], ATTN_DTYPE_FLOAT32, 3, shape) ||
        attn_tensor_init(&key, (void *)data[1], ATTN_DTYPE_FLOAT32, 3, key_shape) ||
        attn_tensor_init(&value, (void *)data[2], ATTN_DTYPE_FLOAT32, 3, key_shape) ||
        attn_tensor_init(&result, output, ATTN_DTYPE_FLOAT32, 3, shape) ||
        attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &query, &key, &value, &params, &mpi_params,
                              &result, &report)) {
        return 1;
    }
    if (rank == 0) {
        printf("%lld rows on %d ranks: %s, since %s\n", (long long)rows * num_ranks, num_ranks,
               report.scheme == ATTN_MPI_SCHEME_RING ? "ring" : "heads", report.reason);
        printf("each rank sends %.1f MB in %lld steps; attending ...\n",
               (double)report.bytes_sent / 1e6, (long long)report.num_steps);
        fflush(stdout);
    }
    const double start = MPI_Wtime();
    const attn_status status = attn_mpi_sdpa(NULL, MPI_COMM_WORLD, &query, &key, &value, &params,
                                             &mpi_params, &result, NULL, 0);
    if (rank == 0 && status == ATTN_OK) {
        printf("done in %.3f s\n", MPI_Wtime() - start);
    }
    return status != ATTN_OK;
}

/* The largest error of some of the rank's rows. */
static double check(int64_t rows, int rank, int num_ranks, const float *output) {
    double worst = 0;
    for (int i = 0; i < CHECKED_ROWS && rows > 0; ++i) {
        const int head = (i + rank) % HEADS;
        const int64_t own_row = (rows - 1) * i / (CHECKED_ROWS - 1);
        const double expected = exact(head, row_of_whole(own_row, rows, rank, num_ranks));
        worst = fmax(worst, fabs(output[(head * rows + own_row) * FEATURES] - expected));
    }
    return worst;
}

int main(int argc, char **argv) {
    int rank, num_ranks, level;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
    const int64_t all_rows = argc > 1 ? strtoll(argv[1], NULL, 10) : 1024;
    const int64_t rows = all_rows / (2 * num_ranks) * 2; /* the same number everywhere, and even */
    float *const data[] = {fill(0, HEADS, rows, rank, num_ranks),
                           fill(1, KEY_HEADS, rows, rank, num_ranks),
                           fill(2, KEY_HEADS, rows, rank, num_ranks)};
    float *const output = malloc((size_t)(HEADS * rows * FEATURES + 1) * sizeof *output);
    if (data[0] == NULL || data[1] == NULL || data[2] == NULL || output == NULL ||
        attend(rows, rank, num_ranks, (const float *[]){data[0], data[1], data[2]}, output)) {
        fprintf(stderr, "rank %d: %s\n", rank, attn_last_error());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    double worst = check(rows, rank, num_ranks, output), worst_of_all;
    MPI_Allreduce(&worst, &worst_of_all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("the worst error of the rows looked at is %.1e\n", worst_of_all);
    }
    for (int i = 0; i < 3; ++i) {
        free(data[i]);
    }
    free(output);
    MPI_Finalize();
    return worst_of_all < 1e-4 ? 0 : 1;
}
