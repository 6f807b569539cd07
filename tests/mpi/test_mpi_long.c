/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_long.c: a sequence that takes some time, so that a ring computes it in pieces and
 * messages go on meanwhile: it is the one call's, and has the same bits on one, two and three
 * threads of a rank.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks_program.h"

/* So much that half of a rank's rows are a piece, forward and backward. */
enum { HEADS = 8, ROWS = 1100, FEATURES = 128 };

/* What a call reads and writes. */
enum long_tensor {
    QUERY,
    KEY,
    VALUE,
    OUTPUT_GRADIENT,
    OUTPUT,
    QUERY_GRADIENT,
    KEY_GRADIENT,
    VALUE_GRADIENT,
    LSE, /* the one without features */
    NUM_TENSORS
};

typedef struct long_call {
    int64_t rows;
    float *data[NUM_TENSORS];
    attn_tensor views[NUM_TENSORS];
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
} long_call;

static int64_t count_of(const long_call *call, int which) {
    return HEADS * call->rows * (which == LSE ? 1 : FEATURES);
}

/* Rows from `first` on; no number is above 1. */
static void prepare(long_call *call, int64_t first, int64_t rows) {
    const int64_t shape[] = {HEADS, rows, FEATURES};
    *call = (long_call){.rows = rows};
    for (int which = 0; which < NUM_TENSORS; ++which) {
        float *const data = malloc((size_t)count_of(call, which) * sizeof *data);
        RANKS_ASSERT(data != NULL, "no memory");
        for (int64_t i = 0; i < count_of(call, which); ++i) {
            const int64_t row = first + i / FEATURES % rows, head = i / FEATURES / rows;
            data[i] = sinf((float)(row * (3 + which) + 7 * head + 5 * (i % FEATURES)));
        }
        call->data[which] = data;
        RANKS_ASSERT(attn_tensor_init(&call->views[which], data, ATTN_DTYPE_FLOAT32,
                                      which == LSE ? 2 : 3, shape) == ATTN_OK,
                     "%s", attn_last_error());
    }
    call->params = (attn_sdpa_params){
        .struct_size = sizeof call->params, .is_causal = 1, .lse = &call->views[LSE]};
    call->gradients = (attn_sdpa_gradients){.struct_size = sizeof call->gradients,
                                            .output = &call->views[OUTPUT_GRADIENT],
                                            .query = &call->views[QUERY_GRADIENT],
                                            .key = &call->views[KEY_GRADIENT],
                                            .value = &call->views[VALUE_GRADIENT]};
}

static void destroy(long_call *call) {
    for (int which = 0; which < NUM_TENSORS; ++which) {
        free(call->data[which]);
    }
}

/* Forward and backward over all ranks, by so many threads of each. */
static void run_over_ranks(long_call *call, int num_threads) {
    const attn_tensor *const views = call->views;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = num_threads};
    const attn_mpi_params mpi_params = {.struct_size = sizeof mpi_params,
                                        .scheme = ATTN_MPI_SCHEME_RING};
    attn_context *context;
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    RANKS_ASSERT_STATUS(attn_mpi_sdpa(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY],
                                      &views[VALUE], &call->params, &mpi_params, &views[OUTPUT],
                                      NULL, 0),
                        ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_backward(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY],
                                               &views[VALUE], &call->params, &mpi_params,
                                               &views[OUTPUT], &call->gradients, NULL, 0),
                        ATTN_OK, "");
    attn_context_destroy(context);
}

static void run_whole(long_call *call) {
    const attn_tensor *const views = call->views;
    RANKS_ASSERT_STATUS(attn_sdpa(NULL, &views[QUERY], &views[KEY], &views[VALUE], &call->params,
                                  &views[OUTPUT], NULL, 0),
                        ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_sdpa_backward(NULL, &views[QUERY], &views[KEY], &views[VALUE],
                                           &call->params, &views[OUTPUT], &call->gradients, NULL,
                                           0),
                        ATTN_OK, "");
}

/* (HEADS, rows): the sum of the weights of each key, which is the gradient of a value where those
 * of all outputs are 1. Overwrites that of the values. */
static float *sums_of_weights(long_call *call) {
    attn_sdpa_gradients gradients = call->gradients;
    float *const sums = malloc((size_t)count_of(call, LSE) * sizeof *sums);
    RANKS_ASSERT(sums != NULL, "no memory");
    gradients.query = gradients.key = NULL;
    for (int64_t i = 0; i < count_of(call, OUTPUT_GRADIENT); ++i) {
        call->data[OUTPUT_GRADIENT][i] = 1;
    }
    RANKS_ASSERT_STATUS(attn_sdpa_backward(NULL, &call->views[QUERY], &call->views[KEY],
                                           &call->views[VALUE], &call->params, &call->views[OUTPUT],
                                           &gradients, NULL, 0),
                        ATTN_OK, "");
    for (int64_t i = 0; i < count_of(call, LSE); ++i) {
        sums[i] = call->data[VALUE_GRADIENT][i * FEATURES];
    }
    return sums;
}

/* The rank's rows of a result, in units of what each may be off by; weights NULL: of 1. */
static void compare(const long_call *own, const long_call *whole, int which, const float *expected,
                    const float *weights, double bound) {
    const int64_t first = own->rows * ranks_rank();
    for (int64_t i = 0; i < count_of(own, which); ++i) {
        const int64_t head = i / FEATURES / own->rows, row = i / FEATURES % own->rows;
        const int64_t at = head * whole->rows + first + row;
        const float exact = expected[at * FEATURES + i % FEATURES];
        const double weight = weights != NULL ? fmax(weights[at], 0) : 1;
        RANKS_ASSERT(fabs((double)own->data[which][i] - exact) <= bound * weight,
                     "tensor %d, head %d, row %d: expected %g within %g, got %g", which, (int)head,
                     (int)row, exact, bound * weight, own->data[which][i]);
    }
}

/*
 * By sdpa.h both results are off by no more than d = (T + 16 + m + 2 * 73 * 8) u, T keys, m = 16,
 * no number above 1 and no sum of 128 products above 128; parts add less than as much again. By
 * backward.h dS of a weight w is off by no more than w s, s = (2 (T + 16 + m + 2 * 73 * 8) + 132) u
 * 128, and a sum of T such terms of at most 256 w by T u 256 more, all times the scale, less than
 * 1 / 11: for a row's gradient the weights are 1 together, for a key's and a value's what they are.
 */
static void the_ring_is_the_one_call(const long_call *own) {
    const double u = 0x1p-24, keys = (double)ROWS * ranks_count();
    const double row = (keys + 32 + 2 * 73 * 8) * u;
    const double sum = ((2 * row + 132 * u) * 128 + keys * u * 256) / 11;
    long_call whole;
    prepare(&whole, 0, (int64_t)ROWS * ranks_count());
    run_whole(&whole);
    compare(own, &whole, OUTPUT, whole.data[OUTPUT], NULL, 3 * row);
    compare(own, &whole, QUERY_GRADIENT, whole.data[QUERY_GRADIENT], NULL, 2 * sum);
    float *const values = malloc((size_t)count_of(&whole, VALUE_GRADIENT) * sizeof *values);
    RANKS_ASSERT(values != NULL, "no memory");
    memcpy(values, whole.data[VALUE_GRADIENT],
           (size_t)count_of(&whole, VALUE_GRADIENT) * sizeof *values);
    float *const weights = sums_of_weights(&whole);
    compare(own, &whole, KEY_GRADIENT, whole.data[KEY_GRADIENT], weights, 2 * sum);
    compare(own, &whole, VALUE_GRADIENT, values, weights, 2 * (row + keys * u));
    free(weights);
    free(values);
    destroy(&whole);
}

static void threads_change_no_bit(const long_call *own) {
    static const int written[] = {OUTPUT, LSE, QUERY_GRADIENT, KEY_GRADIENT, VALUE_GRADIENT};
    for (int num_threads = 2; num_threads <= 3; ++num_threads) {
        long_call again;
        prepare(&again, (int64_t)ROWS * ranks_rank(), ROWS);
        run_over_ranks(&again, num_threads);
        for (size_t i = 0; i < sizeof written / sizeof written[0]; ++i) {
            RANKS_ASSERT(memcmp(again.data[written[i]], own->data[written[i]],
                                (size_t)count_of(own, written[i]) * sizeof(float)) == 0,
                         "tensor %d has other bits on %d threads", written[i], num_threads);
        }
        destroy(&again);
    }
}

int main(int argc, char **argv) {
    long_call own;
    ranks_begin(&argc, &argv, MPI_THREAD_FUNNELED);
    setenv("ATTN_NUM_THREADS", "1", 1); /* of the default context */
    prepare(&own, (int64_t)ROWS * ranks_rank(), ROWS);
    run_over_ranks(&own, 1);
    the_ring_is_the_one_call(&own);
    threads_change_no_bit(&own);
    destroy(&own);
    return ranks_end("long");
}
