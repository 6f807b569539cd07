/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_backward_agreement.c: what goes wrong in a backward pass on one rank, any one, is the
 * same status with the same line on all of them; gradients are untouched, nothing leaks, and the
 * next call with the same communicator has the bits it always had.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors/counting_allocator.h"
#include "ranks_call.h"

/* ---- arguments of one rank ---- */

typedef struct spoiling {
    const char *name;
    void (*spoil)(ranks_call *made);
    attn_status status;
    const char *line; /* its beginning; %d is the rank */
} spoiling;

#define SPOIL(name, statement)                 \
    static void spoil_##name(ranks_call *it) { \
        statement;                             \
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

static const spoiling spoilings[] = {
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

/* All ranks have the line of the first. */
static void assert_same_line(const char *name) {
    char first[512];
    snprintf(first, sizeof first, "%s", attn_last_error());
    MPI_Bcast(first, sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD);
    RANKS_ASSERT(strcmp(first, attn_last_error()) == 0, "%s: rank 0 has \"%s\", this one \"%s\"",
                 name, first, attn_last_error());
}

static void one_ranks_mistake_is_everybodys(int32_t scheme) {
    for (size_t i = 0; i < sizeof spoilings / sizeof spoilings[0]; ++i) {
        const spoiling *const it = &spoilings[i];
        for (int rank = 0; rank < ranks_count(); ++rank) {
            ranks_call made;
            char line[128];
            if (it->status == ATTN_MPI_ERROR_DISAGREE && ranks_count() == 1) {
                continue;
            }
            ranks_call_prepare_backward(&made, scheme, NULL);
            if (rank == ranks_rank()) {
                it->spoil(&made);
            }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(line, sizeof line, it->line, rank);
#pragma GCC diagnostic pop
            RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), it->status,
                                line);
            assert_same_line(it->name);
            ranks_call_assert_gradients_untouched(&made);
        }
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
    attn_tensor slopes_view, gradient_view;
    RANKS_ASSERT(attn_tensor_init(&slopes_view, slopes, ATTN_DTYPE_FLOAT32, 1, &count) == ATTN_OK &&
                     attn_tensor_init(&gradient_view, gradient, ATTN_DTYPE_FLOAT32, 1, &count) ==
                         ATTN_OK,
                 "%s", attn_last_error());
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
} large_call;

static attn_tensor view_of(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    RANKS_ASSERT(attn_tensor_init(&view, data, dtype, rank, shape) == ATTN_OK, "%s",
                 attn_last_error());
    return view;
}

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

/* Forward by a context that does not fail, then backward. */
static attn_status run_large(int32_t scheme, attn_context *context, large_call *made) {
    const int64_t shape[] = {HEADS, LARGE_ROWS, LARGE_FEATURES}, table_shape[] = {HEADS, 9};
    const attn_tensor query = view_of(made->query, ATTN_DTYPE_BFLOAT16, 3, shape);
    const attn_tensor key = view_of(made->key, ATTN_DTYPE_BFLOAT16, 3, shape);
    const attn_tensor output = view_of(made->output, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_tensor lse = view_of(made->lse, ATTN_DTYPE_FLOAT32, 2, shape);
    const attn_tensor sinks = view_of(made->sinks, ATTN_DTYPE_FLOAT32, 1, shape);
    const attn_tensor table = view_of(made->table, ATTN_DTYPE_FLOAT32, 2, table_shape);
    const attn_tensor given = view_of(made->output_gradient, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_tensor of_query = view_of(made->gradients[0], ATTN_DTYPE_BFLOAT16, 3, shape);
    const attn_tensor of_key = view_of(made->gradients[1], ATTN_DTYPE_BFLOAT16, 3, shape);
    const attn_tensor of_value = view_of(made->gradients[2], ATTN_DTYPE_BFLOAT16, 3, shape);
    const attn_tensor of_sinks = view_of(made->sinks_gradient, ATTN_DTYPE_FLOAT32, 1, shape);
    const attn_tensor of_table = view_of(made->table_gradient, ATTN_DTYPE_FLOAT32, 2, table_shape);
    const attn_mpi_params mpi_params = {.struct_size = sizeof mpi_params, .scheme = scheme};
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .sinks = &sinks, .position_bias = &table, .lse = &lse};
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = &given,
                                           .query = &of_query,
                                           .key = &of_key,
                                           .value = &of_value,
                                           .sinks = &of_sinks,
                                           .position_bias = &of_table};
    fill_large(made);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa(NULL, MPI_COMM_WORLD, &query, &key, &key, &params,
                                      &mpi_params, &output, NULL, 0),
                        ATTN_OK, "");
    return attn_mpi_sdpa_backward(context, MPI_COMM_WORLD, &query, &key, &key, &params, &mpi_params,
                                  &output, &gradients, NULL, 0);
}

/* Untouched after a failure, the bits of the first call else. */
static void check_large(const large_call *made, const large_call *expected, int has_failed) {
    large_call untouched;
    fill_large(&untouched);
    const large_call *const as = has_failed ? &untouched : expected;
    RANKS_ASSERT(
        memcmp(made->gradients, as->gradients, sizeof made->gradients) == 0 &&
            memcmp(made->sinks_gradient, as->sinks_gradient, sizeof made->sinks_gradient) == 0 &&
            memcmp(made->table_gradient, as->table_gradient, sizeof made->table_gradient) == 0,
        has_failed ? "a gradient was touched" : "other bits");
}

/* Every allocation of the call fails in turn, on every rank in turn. */
static void no_memory_on_one_rank_is_everybodys(int32_t scheme, const large_call *expected) {
    static large_call made;
    for (int rank = 0; rank < ranks_count(); ++rank) {
        int has_failed = 1;
        for (int64_t n = 1; has_failed; ++n) {
            counting_allocator allocator;
            attn_context *context;
            char line[32];
            attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
            counting_allocator_init(&allocator);
            counting_allocator_use(&allocator, &config);
            RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s",
                         attn_last_error());
            counting_allocator_fail(&allocator, rank == ranks_rank() ? n : 0, false);
            const attn_status status = run_large(scheme, context, &made);
            has_failed = allocator.failures > 0;
            MPI_Bcast(&has_failed, 1, MPI_INT, rank, MPI_COMM_WORLD);
            snprintf(line, sizeof line, "rank %d: ", rank);
            RANKS_ASSERT_STATUS(status, has_failed ? ATTN_ERROR_MEMORY : ATTN_OK,
                                has_failed ? line : "");
            RANKS_ASSERT(n > 1 || has_failed, "no allocation to fail");
            check_large(&made, expected, has_failed);
            attn_context_destroy(context);
            RANKS_ASSERT(allocator.live_blocks == 0 && allocator.mistakes == 0, "memory leaks");
        }
    }
}

/* Refuses once it has been called so often. */
typedef struct refusing_pool {
    int calls_left;
    int has_refused;
} refusing_pool;

static int32_t refuse_later(void *state, int64_t count, attn_task_fn task, void *data) {
    refusing_pool *const pool = state;
    if (pool->calls_left-- == 0) {
        pool->has_refused = 1;
        return 1;
    }
    for (int64_t i = 0; i < count; ++i) {
        task(data, i);
    }
    return 0;
}

/* A rank's pool refuses at each time it is called in turn, while messages are under way too. */
static void a_refused_thread_is_everybodys(int32_t scheme, const large_call *expected) {
    static large_call made;
    for (int rank = 0; rank < ranks_count(); ++rank) {
        int has_refused = 1;
        for (int n = 0; has_refused; ++n) {
            refusing_pool pool = {.calls_left = rank == ranks_rank() ? n : -1};
            attn_context *context;
            char line[32];
            const attn_context_config config = {.struct_size = sizeof config,
                                                .parallel_for = refuse_later,
                                                .parallel_for_state = &pool,
                                                .parallel_for_width = 2};
            RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s",
                         attn_last_error());
            const attn_status status = run_large(scheme, context, &made);
            has_refused = pool.has_refused;
            MPI_Bcast(&has_refused, 1, MPI_INT, rank, MPI_COMM_WORLD);
            RANKS_ASSERT(n > 0 || has_refused, "the pool was never called");
            snprintf(line, sizeof line, "rank %d: ", rank);
            RANKS_ASSERT_STATUS(status, has_refused ? ATTN_ERROR_THREAD : ATTN_OK,
                                has_refused ? line : "");
            check_large(&made, expected, has_refused);
            attn_context_destroy(context);
        }
    }
}

int main(int argc, char **argv) {
    static large_call expected;
    ranks_begin(&argc, &argv, MPI_THREAD_FUNNELED);
    setenv("ATTN_NUM_THREADS", "1", 1); /* of the default context */
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        RANKS_ASSERT_STATUS(run_large(scheme, NULL, &expected), ATTN_OK, "");
        one_ranks_mistake_is_everybodys(scheme);
        another_pass_is_a_difference(scheme);
        shared_gradients_have_one_shape(scheme);
        no_memory_on_one_rank_is_everybodys(scheme, &expected);
        a_refused_thread_is_everybodys(scheme, &expected);
    }
    return ranks_end("backward agreement");
}
