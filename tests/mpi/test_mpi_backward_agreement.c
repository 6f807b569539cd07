/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_backward_agreement.c: what goes wrong in a backward pass on one rank, any one, is the
 * same status with the same line on all of them; gradients are untouched, nothing leaks, and the
 * next call with the same communicator has the bits it always had.
 */
#include <stdlib.h>
#include <string.h>

#include "ranks_call.h"
#include "ranks_faults.h"

/* ---- arguments of one rank ---- */

#define SPOIL(name, statement)             \
    static void spoil_##name(void *data) { \
        ranks_call *const it = data;       \
        statement;                         \
    }

SPOIL(struct_size, it->gradients.struct_size = 8)
SPOIL(no_output, it->gradients.output = NULL)
SPOIL(accumulate, it->gradients.accumulate = 2)
SPOIL(accumulates, it->gradients.accumulate = 1)
SPOIL(weights, it->gradients.weights = &it->output_view)
SPOIL(no_lse, it->params.lse = NULL)
SPOIL(data, it->key_gradient_view.data = NULL)
SPOIL(given_data, it->output_gradient_view.data = NULL)
SPOIL(key_shape, it->key_gradient_view.shape[1] -= 1)
SPOIL(query_shape, it->query_gradient_view.shape[1] -= 1)
SPOIL(dtype, it->value_gradient_view.dtype = ATTN_DTYPE_INT32)
SPOIL(repeats, it->value_gradient_view.strides[1] = 0)
SPOIL(overlap, it->value_gradient_view.data = it->query_gradient)
SPOIL(sinks, it->gradients.sinks = &it->lse_view)
SPOIL(no_key, it->gradients.key = NULL)
SPOIL(lse_gradient, it->gradients.lse = &it->lse_view)

static const ranks_spoiling spoilings[] = {
    {"struct_size", spoil_struct_size, ATTN_ERROR_VALUE,
     "rank %d: gradients: expected struct_size"},
    {"no output", spoil_no_output, ATTN_ERROR_NULL,
     "rank %d: gradients.output: expected a tensor, got NULL"},
    {"accumulate", spoil_accumulate, ATTN_MPI_ERROR_DISAGREE, "gradients.accumulate: expected the"},
    {"accumulates", spoil_accumulates, ATTN_MPI_ERROR_DISAGREE, "gradients.accumulate: expected"},
    {"weights", spoil_weights, ATTN_ERROR_UNSUPPORTED, "rank %d: gradients.weights: expected NULL"},
    {"no lse", spoil_no_lse, ATTN_MPI_ERROR_DISAGREE, "whether there is an lse: expected the same"},
    {"data", spoil_data, ATTN_ERROR_NULL, "rank %d: gradients.key: expected data, got NULL"},
    {"given data", spoil_given_data, ATTN_ERROR_NULL,
     "rank %d: gradients.output: expected data, got NULL"},
    {"shape of key", spoil_key_shape, ATTN_ERROR_SHAPE, "rank %d: gradients.key: "},
    {"shape of query", spoil_query_shape, ATTN_ERROR_SHAPE, "rank %d: gradients.query: "},
    {"dtype", spoil_dtype, ATTN_ERROR_DTYPE, "rank %d: gradients.value: "},
    {"repeats", spoil_repeats, ATTN_ERROR_OVERLAP, "rank %d: gradients.value: expected strides"},
    {"overlap", spoil_overlap, ATTN_ERROR_OVERLAP,
     "rank %d: gradients.value: overlaps gradients.query"},
    {"sinks", spoil_sinks, ATTN_MPI_ERROR_DISAGREE, "whether there is a gradients.sinks: "},
    {"no key", spoil_no_key, ATTN_MPI_ERROR_DISAGREE, "whether there is a gradients.key: "},
    {"gradient of lse", spoil_lse_gradient, ATTN_MPI_ERROR_DISAGREE,
     "whether there is a gradients.lse: "},
};

static void prepare(void *call, int32_t scheme) {
    ranks_call_prepare_backward(call, scheme, NULL);
}

static attn_status run(void *call, attn_context *context) {
    return ranks_call_run_backward(call, context, MPI_COMM_WORLD);
}

static void check(const void *call, int has_failed) {
    RANKS_ASSERT(has_failed, "expected a failure");
    ranks_call_assert_gradients_untouched(call);
}

static void one_ranks_mistake_is_everybodys(int32_t scheme) {
    ranks_call made;
    const ranks_scene scene = {&made, prepare, run, check};
    for (size_t i = 0; i < sizeof spoilings / sizeof spoilings[0]; ++i) {
        ranks_assert_mistake_is_shared(&scene, scheme, &spoilings[i]);
    }
}

/* One rank computes forward while the others compute gradients. */
static void another_pass_is_a_difference(int32_t scheme) {
    ranks_call made;
    if (ranks_count() == 1) {
        return;
    }
    ranks_call_prepare_backward(&made, scheme, NULL);
    const attn_status status = ranks_rank() == 1
                                   ? ranks_call_run(&made, NULL, MPI_COMM_WORLD)
                                   : ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD);
    RANKS_ASSERT_STATUS(status, ATTN_MPI_ERROR_DISAGREE, "whether it is the backward pass: ");
    ranks_call_assert_gradients_untouched(&made);
}

/* What all ranks share has one shape. */
static void shared_gradients_have_one_shape(int32_t scheme) {
    ranks_call made;
    float slopes[HEADS] = {0}, gradient[HEADS];
    const int64_t count = ranks_rank() == 0 ? 1 : HEADS;
    const attn_tensor slopes_view = ranks_view(slopes, ATTN_DTYPE_FLOAT32, 1, &count);
    const attn_tensor gradient_view = ranks_view(gradient, ATTN_DTYPE_FLOAT32, 1, &count);
    ranks_call_prepare_backward(&made, scheme, NULL);
    made.params.alibi_slopes = &slopes_view;
    made.gradients.alibi_slopes = &gradient_view;
    const int is_shared = ranks_count() > 1;
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD),
                        is_shared ? ATTN_MPI_ERROR_DISAGREE : ATTN_OK,
                        is_shared ? "elements of gradients.alibi_slopes: expected the same" : "");
}

/* ---- memory and threads ---- */

/* Large enough for the core library to deal its work out to threads. Gradients of 16 bits are
 * stored by another of its calls, and those of sinks, a table and a bias take further passes. */
enum {
    LARGE_ROWS = 160,
    LARGE_FEATURES = 32,
    LARGE_ELEMENTS = HEADS * LARGE_ROWS * LARGE_FEATURES
};

typedef struct large_call {
    uint16_t query[LARGE_ELEMENTS], key[LARGE_ELEMENTS], gradients[3][LARGE_ELEMENTS];
    float output[LARGE_ELEMENTS], output_gradient[LARGE_ELEMENTS], lse[HEADS * LARGE_ROWS];
    float sinks[HEADS], table[HEADS * 9], sinks_gradient[HEADS], table_gradient[HEADS * 9];
    attn_tensor query_view, key_view, output_view, lse_view, sinks_view, table_view, given_view;
    attn_tensor of_query, of_key, of_value, of_sinks, of_table;
    attn_sdpa_params params;
    attn_sdpa_gradients wanted;
    attn_mpi_params mpi_params;
} large_call;

static void fill_large(large_call *made) {
    memset(made, 0, sizeof *made);
    memset(made->gradients, 0x5a, sizeof made->gradients);
    memset(made->sinks_gradient, 0x5a, sizeof made->sinks_gradient);
    memset(made->table_gradient, 0x5a, sizeof made->table_gradient);
    for (int i = 0; i < LARGE_ELEMENTS; ++i) {
        made->query[i] = (uint16_t)(0x3f00 + i % 7); /* bfloat16, about 0.5 */
        made->key[i] = (uint16_t)(0x3f00 + (i + ranks_rank()) % 5);
        made->output_gradient[i] = (float)(i % 3) - 1;
    }
}

static void describe_large(large_call *made, int32_t scheme) {
    const int64_t shape[] = {HEADS, LARGE_ROWS, LARGE_FEATURES}, table_shape[] = {HEADS, 9};
    const int32_t narrow = ATTN_DTYPE_BFLOAT16, wide = ATTN_DTYPE_FLOAT32;
    made->query_view = ranks_view(made->query, narrow, 3, shape);
    made->key_view = ranks_view(made->key, narrow, 3, shape);
    made->output_view = ranks_view(made->output, wide, 3, shape);
    made->lse_view = ranks_view(made->lse, wide, 2, shape);
    made->sinks_view = ranks_view(made->sinks, wide, 1, shape);
    made->table_view = ranks_view(made->table, wide, 2, table_shape);
    made->given_view = ranks_view(made->output_gradient, wide, 3, shape);
    made->of_query = ranks_view(made->gradients[0], narrow, 3, shape);
    made->of_key = ranks_view(made->gradients[1], narrow, 3, shape);
    made->of_value = ranks_view(made->gradients[2], narrow, 3, shape);
    made->of_sinks = ranks_view(made->sinks_gradient, wide, 1, shape);
    made->of_table = ranks_view(made->table_gradient, wide, 2, table_shape);
    made->mpi_params = (attn_mpi_params){.struct_size = sizeof made->mpi_params, .scheme = scheme};
    made->params = (attn_sdpa_params){.struct_size = sizeof made->params,
                                      .sinks = &made->sinks_view,
                                      .position_bias = &made->table_view,
                                      .lse = &made->lse_view};
    made->wanted = (attn_sdpa_gradients){.struct_size = sizeof made->wanted,
                                         .output = &made->given_view,
                                         .query = &made->of_query,
                                         .key = &made->of_key,
                                         .value = &made->of_value,
                                         .sinks = &made->of_sinks,
                                         .position_bias = &made->of_table};
}

/* Forward, by a context that does not fail. */
static void prepare_large(void *data, int32_t scheme) {
    large_call *const made = data;
    fill_large(made);
    describe_large(made, scheme);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa(NULL, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                                      &made->key_view, &made->params, &made->mpi_params,
                                      &made->output_view, NULL, 0),
                        ATTN_OK, "");
}

static attn_status run_large(void *data, attn_context *context) {
    large_call *const made = data;
    return attn_mpi_sdpa_backward(context, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                                  &made->key_view, &made->params, &made->mpi_params,
                                  &made->output_view, &made->wanted, NULL, 0);
}

static large_call large, expected;

/* Untouched after a failure, the bits of the first call else. */
static void check_large(const void *data, int has_failed) {
    static large_call untouched;
    const large_call *const made = data;
    fill_large(&untouched);
    const large_call *const as = has_failed ? &untouched : &expected;
    RANKS_ASSERT(
        memcmp(made->gradients, as->gradients, sizeof made->gradients) == 0 &&
            memcmp(made->sinks_gradient, as->sinks_gradient, sizeof made->sinks_gradient) == 0 &&
            memcmp(made->table_gradient, as->table_gradient, sizeof made->table_gradient) == 0,
        has_failed ? "a gradient was touched" : "other bits");
}

int main(int argc, char **argv) {
    const ranks_scene scene = {&large, prepare_large, run_large, check_large};
    ranks_begin(&argc, &argv, MPI_THREAD_FUNNELED);
    setenv("ATTN_NUM_THREADS", "1", 1); /* of the default context */
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        prepare_large(&expected, scheme);
        RANKS_ASSERT_STATUS(run_large(&expected, NULL), ATTN_OK, "");
        one_ranks_mistake_is_everybodys(scheme);
        another_pass_is_a_difference(scheme);
        shared_gradients_have_one_shape(scheme);
        ranks_assert_no_memory_is_shared(&scene, scheme);
        ranks_assert_refused_thread_is_shared(&scene, scheme);
    }
    return ranks_end("backward agreement");
}
