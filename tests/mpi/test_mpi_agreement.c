/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_agreement.c: what goes wrong on one rank, any one, is the same status with the same line
 * on all of them; outputs are untouched, nothing leaks, and the next call with the same
 * communicator has the bits it always had.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks_faults.h"

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
    const float *expected; /* output of a call that succeeds */
} call;

/* The output of an unspoilt call of a scheme. */
static float expected[ATTN_MPI_SCHEME_DECODE + 1][OUTPUTS];

static void prepare(void *data, int32_t scheme) {
    call *const made = data;
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
    made->query_view = ranks_view(made->query, ATTN_DTYPE_FLOAT32, 3, rows);
    made->key_view = ranks_view(made->key, ATTN_DTYPE_FLOAT32, 3, keys);
    made->value_view = ranks_view(made->value, ATTN_DTYPE_FLOAT32, 3, keys);
    made->output_view = ranks_view(made->output, ATTN_DTYPE_FLOAT32, 3, rows);
    made->lse_view = ranks_view(made->lse, ATTN_DTYPE_FLOAT32, 2, rows);
    made->slopes_view = ranks_view(made->slopes, ATTN_DTYPE_FLOAT32, 1, &heads);
    made->length = KEYS * ranks_count() - 1;
    made->offset_view = ranks_view(&made->offset, ATTN_DTYPE_INT64, 0, NULL);
    made->length_view = ranks_view(&made->length, ATTN_DTYPE_INT64, 0, NULL);
    made->params = (attn_sdpa_params){.struct_size = sizeof made->params,
                                      .enable_gqa = 1,
                                      .query_offset = &made->offset_view,
                                      .key_lengths = &made->length_view,
                                      .alibi_slopes = &made->slopes_view,
                                      .lse = &made->lse_view};
    made->mpi_params = (attn_mpi_params){.struct_size = sizeof made->mpi_params, .scheme = scheme};
    made->expected = expected[scheme];
}

static attn_status run(void *data, attn_context *context) {
    call *const made = data;
    return attn_mpi_sdpa(context, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                         &made->value_view, &made->params, &made->mpi_params, &made->output_view,
                         NULL, 0);
}

static void check(const void *data, int has_failed) {
    const call *const made = data;
    const unsigned char *const output = (const unsigned char *)made->output;
    const unsigned char *const lse = (const unsigned char *)made->lse;
    for (size_t i = 0; i < sizeof made->output && has_failed; ++i) {
        RANKS_ASSERT(output[i] == 0x5a, "output was touched at byte %zu", i);
    }
    for (size_t i = 0; i < sizeof made->lse && has_failed; ++i) {
        RANKS_ASSERT(lse[i] == 0x5a, "lse was touched at byte %zu", i);
    }
    RANKS_ASSERT(has_failed || memcmp(made->expected, made->output, sizeof made->output) == 0,
                 "a call after a failure has other bits");
}

static call small;
static const ranks_scene small_scene = {&small, prepare, run, check};

static void assert_usable(int32_t scheme) {
    prepare(&small, scheme);
    RANKS_ASSERT_STATUS(run(&small, NULL), ATTN_OK, "");
    check(&small, 0);
}

/* ---- arguments and options of one rank ---- */

#define SPOIL(name, statement)             \
    static void spoil_##name(void *data) { \
        call *const it = data;             \
        statement;                         \
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

static const ranks_spoiling spoilings[] = {
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

static void one_ranks_mistake_is_everybodys(int32_t scheme) {
    for (size_t i = 0; i < sizeof spoilings / sizeof spoilings[0]; ++i) {
        ranks_assert_mistake_is_shared(&small_scene, scheme, &spoilings[i]);
        assert_usable(scheme);
    }
}

static void the_ranks_that_differ_are_named(void) {
    call made;
    if (ranks_count() < 4) {
        return;
    }
    prepare(&made, ATTN_MPI_SCHEME_RING);
    made.params.softcap = ranks_rank() == 1 || ranks_rank() >= 3 ? 2.5 : 1.25;
    const char *const line =
        ranks_count() == 4 ? "softcap: expected the same on all ranks, got 1.25 on rank 0 and not "
                             "on ranks 1, 3"
                           : "softcap: expected the same on all ranks, got 1.25 on rank 0 and not "
                             "on ranks 1, 3-";
    RANKS_ASSERT_STATUS(run(&made, NULL), ATTN_MPI_ERROR_DISAGREE, line);
    /* Of two ranks that fail the lower one has its say. */
    prepare(&made, ATTN_MPI_SCHEME_RING);
    if (ranks_rank() == 2) {
        made.key_view.rank = 1;
    } else if (ranks_rank() == 3) {
        made.query_view.data = NULL;
    }
    RANKS_ASSERT_STATUS(run(&made, NULL), ATTN_ERROR_SHAPE, "rank 2: key: expected rank");
}

/* ---- threads ---- */

/* Large enough for the core library to deal its work out to threads. */
enum {
    LARGE_ROWS = 160,
    LARGE_FEATURES = 32,
    LARGE_ELEMENTS = HEADS * LARGE_ROWS * LARGE_FEATURES
};

typedef struct large_call {
    float query[LARGE_ELEMENTS], key[LARGE_ELEMENTS], output[LARGE_ELEMENTS];
    int32_t scheme;
} large_call;

static void prepare_large(void *data, int32_t scheme) {
    large_call *const made = data;
    made->scheme = scheme;
    for (int i = 0; i < LARGE_ELEMENTS; ++i) {
        made->query[i] = (float)(i % 7) - 3;
        made->key[i] = (float)(i % 5) - 2;
        made->output[i] = 77;
    }
}

static attn_status run_large(void *data, attn_context *context) {
    large_call *const made = data;
    const int64_t shape[] = {HEADS, LARGE_ROWS, LARGE_FEATURES};
    const attn_tensor query = ranks_view(made->query, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_tensor key = ranks_view(made->key, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_tensor output = ranks_view(made->output, ATTN_DTYPE_FLOAT32, 3, shape);
    const attn_mpi_params mpi_params = {.struct_size = sizeof mpi_params, .scheme = made->scheme};
    return attn_mpi_sdpa(context, MPI_COMM_WORLD, &query, &key, &key, NULL, &mpi_params, &output,
                         NULL, 0);
}

static void check_large(const void *data, int has_failed) {
    const large_call *const made = data;
    for (int i = 0; i < LARGE_ELEMENTS; ++i) {
        RANKS_ASSERT((made->output[i] == 77) == has_failed, "output %d is %g", i, made->output[i]);
    }
}

int main(int argc, char **argv) {
    static large_call large;
    const ranks_scene large_scene = {&large, prepare_large, run_large, check_large};
    ranks_begin(&argc, &argv, MPI_THREAD_FUNNELED);
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        prepare(&small, scheme);
        RANKS_ASSERT_STATUS(run(&small, NULL), ATTN_OK, "");
        memcpy(expected[scheme], small.output, sizeof small.output);
        one_ranks_mistake_is_everybodys(scheme);
        ranks_assert_no_memory_is_shared(&small_scene, scheme);
        ranks_assert_refused_thread_is_shared(&large_scene, scheme);
        assert_usable(scheme);
    }
    the_ranks_that_differ_are_named();
    return ranks_end("agreement");
}
