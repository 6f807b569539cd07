/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_agreement.c: what goes wrong on one rank, any one, is the same status with the same line
 * on all of them; outputs are untouched, nothing leaks, and the next call with the same
 * communicator has the bits it always had.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors/counting_allocator.h"
#include "patient_mpi.h"
#include "ranks_program.h"

enum {
    HEADS = 4,
    KEY_HEADS = 2,
    ROWS = 6,
    KEYS = 5,
    FEATURES = 4,
    OUTPUTS = HEADS * ROWS * FEATURES
};

/* One call with arguments that a test spoils. */
typedef struct call {
    float query[OUTPUTS], key[KEY_HEADS * KEYS * FEATURES], value[KEY_HEADS * KEYS * FEATURES];
    float output[OUTPUTS], lse[HEADS * ROWS], mask[ROWS * KEYS], slopes[HEADS];
    int64_t offset, length;
    attn_tensor query_view, key_view, value_view, output_view, lse_view, offset_view, length_view;
    attn_tensor slopes_view;
    attn_sdpa_params params;
    attn_mpi_params mpi_params;
    attn_context *context;
} call;

static attn_tensor view_of(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    RANKS_ASSERT(attn_tensor_init(&view, data, dtype, rank, shape) == ATTN_OK, "%s",
                 attn_last_error());
    return view;
}

static void prepare(call *made, int32_t scheme, attn_context *context) {
    const int64_t rows[] = {HEADS, ROWS, FEATURES}, keys[] = {KEY_HEADS, KEYS, FEATURES};
    const int64_t heads = HEADS;
    memset(made, 0, sizeof *made);
    for (int i = 0; i < OUTPUTS; ++i) {
        made->query[i] = (float)(i % 7) - 3;
    }
    for (int i = 0; i < KEY_HEADS * KEYS * FEATURES; ++i) {
        made->key[i] = (float)((i + ranks_rank()) % 5) - 2;
        made->value[i] = (float)((3 * i + ranks_rank()) % 11) - 5;
    }
    memset(made->output, 0x5a, sizeof made->output);
    memset(made->lse, 0x5a, sizeof made->lse);
    made->query_view = view_of(made->query, ATTN_DTYPE_FLOAT32, 3, rows);
    made->key_view = view_of(made->key, ATTN_DTYPE_FLOAT32, 3, keys);
    made->value_view = view_of(made->value, ATTN_DTYPE_FLOAT32, 3, keys);
    made->output_view = view_of(made->output, ATTN_DTYPE_FLOAT32, 3, rows);
    made->lse_view = view_of(made->lse, ATTN_DTYPE_FLOAT32, 2, rows);
    made->slopes_view = view_of(made->slopes, ATTN_DTYPE_FLOAT32, 1, &heads);
    made->length = KEYS * ranks_count() - 1;
    made->offset_view = view_of(&made->offset, ATTN_DTYPE_INT64, 0, NULL);
    made->length_view = view_of(&made->length, ATTN_DTYPE_INT64, 0, NULL);
    made->params = (attn_sdpa_params){.struct_size = sizeof made->params,
                                      .enable_gqa = 1,
                                      .query_offset = &made->offset_view,
                                      .key_lengths = &made->length_view,
                                      .alibi_slopes = &made->slopes_view,
                                      .lse = &made->lse_view};
    made->mpi_params = (attn_mpi_params){.struct_size = sizeof made->mpi_params, .scheme = scheme};
    made->context = context;
}

static attn_status run(call *made) {
    return attn_mpi_sdpa(made->context, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                         &made->value_view, &made->params, &made->mpi_params, &made->output_view,
                         NULL, 0);
}

static void assert_untouched(const call *made) {
    const unsigned char *const output = (const unsigned char *)made->output;
    const unsigned char *const lse = (const unsigned char *)made->lse;
    for (size_t i = 0; i < sizeof made->output; ++i) {
        RANKS_ASSERT(output[i] == 0x5a, "output was touched at byte %zu", i);
    }
    for (size_t i = 0; i < sizeof made->lse; ++i) {
        RANKS_ASSERT(lse[i] == 0x5a, "lse was touched at byte %zu", i);
    }
}

/* The output of an unspoilt call, which every later one must have again. */
static void assert_usable(int32_t scheme, float *expected, int is_first) {
    call good;
    prepare(&good, scheme, NULL);
    RANKS_ASSERT_STATUS(run(&good), ATTN_OK, "");
    if (is_first) {
        memcpy(expected, good.output, sizeof good.output);
    }
    RANKS_ASSERT(memcmp(expected, good.output, sizeof good.output) == 0,
                 "a call after a failure has other bits");
}

/* ---- arguments and options of one rank ---- */

typedef struct spoiling {
    const char *name;
    void (*spoil)(call *made);
    attn_status status;
    const char *line; /* its beginning; %d is the rank */
} spoiling;

#define SPOIL(name, statement)           \
    static void spoil_##name(call *it) { \
        statement;                       \
    }

static const attn_dropout some_dropout = {.struct_size = sizeof some_dropout};
static const attn_dropout small_dropout = {.struct_size = 8};

SPOIL(normalizer, it->params.normalizer = 77)
SPOIL(key_shape, it->key_view.shape[2] = FEATURES - 1; it->query_view.shape[2] = FEATURES - 1)
SPOIL(value_rows, it->value_view.shape[1] = KEYS - 1)
SPOIL(data, it->query_view.data = NULL)
SPOIL(slopes_data, it->slopes_view.data = NULL)
SPOIL(rank_one, it->key_view.rank = 1)
SPOIL(rank_many, it->key_view.rank = 99)
SPOIL(weights, it->params.weights = &it->output_view)
SPOIL(scores, it->params.scores = &it->output_view)
SPOIL(query_starts, it->params.query_starts = &it->offset_view)
SPOIL(block_mask, it->params.block_mask = &it->offset_view)
SPOIL(dropout, it->params.dropout = &some_dropout)
SPOIL(dropout_size, it->params.dropout = &small_dropout)
SPOIL(struct_size, it->params.struct_size = 8)
SPOIL(mpi_struct_size, it->mpi_params.struct_size = 5000)
SPOIL(scheme_unknown, it->mpi_params.scheme = 4)
SPOIL(scheme_negative, it->mpi_params.scheme = -1)
SPOIL(placement_unknown, it->mpi_params.placement = 2)
SPOIL(latency, it->mpi_params.latency_seconds = -1)
SPOIL(length, it->length = KEYS * 100)
SPOIL(length_negative, it->length = -1)
SPOIL(output_repeats, it->output_view.strides[1] = 0)
SPOIL(lse_repeats, it->lse_view.strides[1] = 0)
SPOIL(lse_over_output, it->lse_view.data = it->output)
SPOIL(causal, it->params.is_causal = 1)
SPOIL(softcap, it->params.softcap = 2.5)
SPOIL(no_lse, it->params.lse = NULL)
SPOIL(offset_value, it->offset = 3)
SPOIL(length_value, it->length -= 1)
SPOIL(cost, it->mpi_params.bytes_per_second = 1e9)
SPOIL(heads, it->query_view.shape[0] = HEADS - 2; it->output_view.shape[0] = HEADS - 2)
SPOIL(placement, it->mpi_params.placement = ATTN_MPI_PLACEMENT_ZIGZAG)

static const spoiling spoilings[] = {
    {"normalizer", spoil_normalizer, ATTN_MPI_ERROR_DISAGREE, "normalizer: expected the same"},
    {"value rows", spoil_value_rows, ATTN_ERROR_SHAPE, "rank %d: value: "},
    {"data", spoil_data, ATTN_ERROR_NULL, "rank %d: query: expected data, got NULL"},
    {"slopes data", spoil_slopes_data, ATTN_ERROR_NULL,
     "rank %d: alibi_slopes: expected data, got NULL"},
    {"rank 1", spoil_rank_one, ATTN_ERROR_SHAPE, "rank %d: key: expected rank 2 to 8, got 1"},
    {"rank 99", spoil_rank_many, ATTN_ERROR_VALUE, "rank %d: key: "},
    {"weights", spoil_weights, ATTN_ERROR_UNSUPPORTED, "rank %d: weights: expected NULL"},
    {"scores", spoil_scores, ATTN_ERROR_UNSUPPORTED, "rank %d: scores: expected NULL"},
    {"query_starts", spoil_query_starts, ATTN_ERROR_UNSUPPORTED,
     "rank %d: query_starts: expected NULL"},
    {"block_mask", spoil_block_mask, ATTN_MPI_ERROR_DISAGREE,
     "whether there is a block_mask: expected the same"},
    {"dropout", spoil_dropout, ATTN_MPI_ERROR_DISAGREE,
     "whether there is a dropout: expected the same"},
    {"dropout struct_size", spoil_dropout_size, ATTN_ERROR_VALUE,
     "rank %d: dropout: expected struct_size"},
    {"struct_size", spoil_struct_size, ATTN_ERROR_VALUE, "rank %d: params: expected struct_size"},
    {"mpi struct_size", spoil_mpi_struct_size, ATTN_ERROR_VALUE,
     "rank %d: mpi_params: expected struct_size"},
    {"unknown scheme", spoil_scheme_unknown, ATTN_ERROR_UNSUPPORTED,
     "rank %d: scheme: expected 0 to 3, of enum attn_mpi_scheme, got 4"},
    {"negative scheme", spoil_scheme_negative, ATTN_ERROR_VALUE, "rank %d: scheme: "},
    {"unknown placement", spoil_placement_unknown, ATTN_ERROR_UNSUPPORTED, "rank %d: placement: "},
    {"latency", spoil_latency, ATTN_ERROR_VALUE, "rank %d: latency_seconds: "},
    {"length", spoil_length, ATTN_ERROR_VALUE, "rank %d: key_lengths: expected 0 to "},
    {"negative length", spoil_length_negative, ATTN_ERROR_VALUE, "rank %d: key_lengths: "},
    {"output over itself", spoil_output_repeats, ATTN_ERROR_OVERLAP,
     "rank %d: output: expected strides"},
    {"lse over itself", spoil_lse_repeats, ATTN_ERROR_OVERLAP, "rank %d: lse: expected strides"},
    {"lse over output", spoil_lse_over_output, ATTN_ERROR_OVERLAP, "rank %d: lse: overlaps output"},
    {"causal", spoil_causal, ATTN_MPI_ERROR_DISAGREE, "is_causal: expected the same on all ranks"},
    {"key shape", spoil_key_shape, ATTN_MPI_ERROR_DISAGREE, "query axis -1: expected the same"},
    {"softcap", spoil_softcap, ATTN_MPI_ERROR_DISAGREE, "softcap: expected the same on all ranks"},
    {"no lse", spoil_no_lse, ATTN_MPI_ERROR_DISAGREE, "whether there is an lse: expected the same"},
    {"offset", spoil_offset_value, ATTN_MPI_ERROR_DISAGREE, "the numbers in query_offset: "},
    {"lengths", spoil_length_value, ATTN_MPI_ERROR_DISAGREE, "the numbers in key_lengths: "},
    {"cost", spoil_cost, ATTN_MPI_ERROR_DISAGREE, "bytes_per_second: expected the same"},
    {"heads", spoil_heads, ATTN_MPI_ERROR_DISAGREE, "query axis -3: expected the same"},
    {"placement", spoil_placement, ATTN_MPI_ERROR_DISAGREE, "placement: expected the same"},
};

/* All ranks have the line of the first. */
static void assert_same_line(const char *name) {
    char first[512];
    snprintf(first, sizeof first, "%s", attn_last_error());
    MPI_Bcast(first, sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD);
    RANKS_ASSERT(strcmp(first, attn_last_error()) == 0, "%s: rank 0 has \"%s\", this one \"%s\"",
                 name, first, attn_last_error());
}

static void one_ranks_mistake_is_everybodys(int32_t scheme, float *expected) {
    for (size_t i = 0; i < sizeof spoilings / sizeof spoilings[0]; ++i) {
        const spoiling *const it = &spoilings[i];
        const int is_difference = it->status == ATTN_MPI_ERROR_DISAGREE;
        for (int rank = 0; rank < ranks_count(); ++rank) {
            call made;
            char line[128];
            prepare(&made, scheme, NULL);
            if (rank == ranks_rank()) {
                it->spoil(&made);
            }
            if (is_difference && ranks_count() == 1) {
                continue;
            }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(line, sizeof line, it->line, rank);
#pragma GCC diagnostic pop
            RANKS_ASSERT_STATUS(run(&made), it->status, line);
            assert_same_line(it->name);
            assert_untouched(&made);
        }
        assert_usable(scheme, expected, 0);
    }
}

static void the_ranks_that_differ_are_named(void) {
    call made;
    if (ranks_count() < 4) {
        return;
    }
    prepare(&made, ATTN_MPI_SCHEME_RING, NULL);
    made.params.softcap = ranks_rank() == 1 || ranks_rank() >= 3 ? 2.5 : 1.25;
    const char *const line =
        ranks_count() == 4 ? "softcap: expected the same on all ranks, got 1.25 on rank 0 and not "
                             "on ranks 1, 3"
                           : "softcap: expected the same on all ranks, got 1.25 on rank 0 and not "
                             "on ranks 1, 3-";
    RANKS_ASSERT_STATUS(run(&made), ATTN_MPI_ERROR_DISAGREE, line);
    /* Of two ranks that fail the lower one has its say. */
    prepare(&made, ATTN_MPI_SCHEME_RING, NULL);
    if (ranks_rank() == 2) {
        made.key_view.rank = 1;
    } else if (ranks_rank() == 3) {
        made.query_view.data = NULL;
    }
    RANKS_ASSERT_STATUS(run(&made), ATTN_ERROR_SHAPE, "rank 2: key: expected rank");
}

/* ---- memory and threads ---- */

/* Every allocation of the call fails in turn, on every rank in turn. */
static void no_memory_on_one_rank_is_everybodys(int32_t scheme, float *expected) {
    for (int rank = 0; rank < ranks_count(); ++rank) {
        int has_failed = 1;
        for (int64_t n = 1; has_failed; ++n) {
            counting_allocator allocator;
            attn_context *context;
            call made;
            char line[32];
            attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
            counting_allocator_init(&allocator);
            counting_allocator_use(&allocator, &config);
            RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s",
                         attn_last_error());
            prepare(&made, scheme, context);
            counting_allocator_fail(&allocator, rank == ranks_rank() ? n : 0, false);
            const attn_status status = run(&made);
            has_failed = allocator.failures > 0;
            MPI_Bcast(&has_failed, 1, MPI_INT, rank, MPI_COMM_WORLD);
            snprintf(line, sizeof line, "rank %d: ", rank);
            RANKS_ASSERT_STATUS(status, has_failed ? ATTN_ERROR_MEMORY : ATTN_OK,
                                has_failed ? line : "");
            RANKS_ASSERT(n > 1 || has_failed, "no allocation to fail");
            if (has_failed) {
                assert_untouched(&made);
            } else {
                RANKS_ASSERT(memcmp(expected, made.output, sizeof made.output) == 0, "other bits");
            }
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

/* Large enough for the core library to deal its work out to threads. */
enum {
    LARGE_ROWS = 160,
    LARGE_FEATURES = 32,
    LARGE_ELEMENTS = HEADS * LARGE_ROWS * LARGE_FEATURES
};

static attn_status run_large(int32_t scheme, attn_context *context, float *output) {
    static float query[LARGE_ELEMENTS], key[LARGE_ELEMENTS];
    const int64_t shape[] = {HEADS, LARGE_ROWS, LARGE_FEATURES};
    const attn_tensor query_view = view_of(query, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_tensor key_view = view_of(key, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_tensor output_view = view_of(output, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_mpi_params mpi_params = {.struct_size = sizeof mpi_params, .scheme = scheme};
    for (int i = 0; i < LARGE_ELEMENTS; ++i) {
        query[i] = (float)(i % 7) - 3;
        key[i] = (float)(i % 5) - 2;
        output[i] = 77;
    }
    return attn_mpi_sdpa(context, MPI_COMM_WORLD, &query_view, &key_view, &key_view, NULL,
                         &mpi_params, &output_view, NULL, 0);
}

/* A rank's pool refuses at each time it is called in turn, while messages are under way too. */
static void a_refused_thread_is_everybodys(int32_t scheme) {
    static float output[LARGE_ELEMENTS];
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
            const attn_status status = run_large(scheme, context, output);
            has_refused = pool.has_refused;
            MPI_Bcast(&has_refused, 1, MPI_INT, rank, MPI_COMM_WORLD);
            RANKS_ASSERT(n > 0 || has_refused, "the pool was never called");
            snprintf(line, sizeof line, "rank %d: ", rank);
            RANKS_ASSERT_STATUS(status, has_refused ? ATTN_ERROR_THREAD : ATTN_OK,
                                has_refused ? line : "");
            for (int i = 0; i < LARGE_ELEMENTS; ++i) {
                RANKS_ASSERT((output[i] == 77) == has_refused, "output %d is %g", i, output[i]);
            }
            attn_context_destroy(context);
        }
    }
}

int main(int argc, char **argv) {
    ranks_begin(&argc, &argv, MPI_THREAD_FUNNELED);
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        float expected[OUTPUTS];
        assert_usable(scheme, expected, 1);
        one_ranks_mistake_is_everybodys(scheme, expected);
        no_memory_on_one_rank_is_everybodys(scheme, expected);
        a_refused_thread_is_everybodys(scheme);
        assert_usable(scheme, expected, 0);
    }
    the_ranks_that_differ_are_named();
    return ranks_end("agreement");
}
