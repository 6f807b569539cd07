/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_reports.c: what reports say of a call: its scheme, what travels, and what it should
 * cost.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks_call.h"

static void a_ring_reports_what_it_sends(void) {
    ranks_call made;
    attn_mpi_report before, after = {.struct_size = sizeof after};
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    made.mpi_params.report = &after;
    RANKS_ASSERT_STATUS(ranks_call_explain(&made, &before), ATTN_OK, "");
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    RANKS_ASSERT(memcmp(&before, &after, sizeof before) == 0, "the report of the run differs");
    const uint64_t block = 2 * sizeof made.key;
    RANKS_ASSERT(after.num_steps == ranks_count() && after.rank == ranks_rank() &&
                     after.num_ranks == ranks_count() && after.scheme == ATTN_MPI_SCHEME_RING,
                 "rank %d of %d, %d steps", (int)after.rank, (int)after.num_ranks,
                 (int)after.num_steps);
    RANKS_ASSERT(after.bytes_sent == block * (uint64_t)(ranks_count() - 1), "sent %llu bytes",
                 (unsigned long long)after.bytes_sent);
    RANKS_ASSERT(strcmp(after.reason, "it was asked for") == 0, "%s", after.reason);
    RANKS_ASSERT(isinf(after.decode_seconds) && after.ring_seconds > 0 && after.heads_seconds > 0,
                 "%g, %g and %g seconds", after.ring_seconds, after.heads_seconds,
                 after.decode_seconds);
}

/* Rows see keys of their own rank and the one before. */
static void a_window_ends_the_ring_early(void) {
    ranks_call made;
    attn_mpi_report report;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    made.params.set = ATTN_SDPA_SET_WINDOW;
    made.params.window_left = KEYS;
    made.params.is_causal = 1;
    RANKS_ASSERT_STATUS(ranks_call_explain(&made, &report), ATTN_OK, "");
    const int64_t steps = ranks_count() < 2 ? 1 : 2;
    RANKS_ASSERT(report.num_steps == steps, "%d steps", (int)report.num_steps);
    RANKS_ASSERT(report.bytes_sent == 2 * sizeof made.key * (uint64_t)(steps - 1),
                 "sent %llu bytes", (unsigned long long)report.bytes_sent);
}

/* The first row of a rank sees its own key and the last one of the rank before, and no other: with
 * scores of 0 it is the mean of their values. */
static void a_window_reaches_the_last_key_of_a_block(void) {
    ranks_call made;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    memset(made.query, 0, sizeof made.query);
    for (int i = 0; i < ELEMENTS; ++i) {
        made.value[i] = (float)(ranks_rank() * ROWS + i / FEATURES % ROWS);
    }
    made.params.set = ATTN_SDPA_SET_WINDOW;
    made.params.window_left = 1;
    made.params.is_causal = 1;
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    for (int i = 0; i < ELEMENTS; ++i) {
        const int row = ranks_rank() * ROWS + i / FEATURES % ROWS;
        const float mean = row == 0 ? 0 : (float)row - 0.5f;
        RANKS_ASSERT(fabsf(made.output[i] - mean) < 1e-5f, "row %d is %g", row, made.output[i]);
    }
}

/* A message that costs much speaks for heads, which sends fewer bytes to fewer; one that costs
 * nothing for the ring, which then hides behind the work. */
static void the_cheaper_scheme_is_chosen(void) {
    ranks_call made;
    attn_mpi_report report;
    if (ranks_count() < 2) {
        return;
    }
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_AUTO);
    made.mpi_params.bytes_per_second = 1e3;
    RANKS_ASSERT_STATUS(ranks_call_explain(&made, &report), ATTN_OK, "");
    RANKS_ASSERT(report.scheme == (report.ring_seconds <= report.heads_seconds
                                       ? ATTN_MPI_SCHEME_RING
                                       : ATTN_MPI_SCHEME_HEADS),
                 "chose %d although ring %g, heads %g", (int)report.scheme, report.ring_seconds,
                 report.heads_seconds);
    made.mpi_params.bytes_per_second = 1e15;
    made.mpi_params.latency_seconds = 1e-12;
    made.mpi_params.products_per_second = 1;
    RANKS_ASSERT_STATUS(ranks_call_explain(&made, &report), ATTN_OK, "");
    RANKS_ASSERT(report.scheme == ATTN_MPI_SCHEME_RING || HEADS % ranks_count() == 0,
                 "chose heads, of which some rank has more than its share");
}

/* Pairs of one of the rank's rows and a key that it sees, by looking at each. */
static double count_pairs(const attn_sdpa_params *params, int rank, int32_t placement) {
    const int num_ranks = ranks_count(), keys = KEYS * num_ranks;
    double pairs = 0;
    for (int row = 0; row < ROWS; ++row) {
        int position = rank * ROWS + row;
        if (placement == ATTN_MPI_PLACEMENT_ZIGZAG) {
            const int half = ROWS / 2, second = (2 * num_ranks - 1 - rank) * half + row - half;
            position = row < half ? rank * half + row : second;
        }
        for (int key = 0; key < keys; ++key) {
            const int has_window = params->set & ATTN_SDPA_SET_WINDOW;
            pairs += !(params->is_causal && key > position) &&
                     !(has_window && (key < position - params->window_left ||
                                      key > position + params->window_right));
        }
    }
    return pairs;
}

/* Where messages cost nothing and a product a second, a ring takes the busiest rank's products. */
static void predictions_count_what_rows_see(void) {
    for (int variant = 0; variant < 8; ++variant) {
        ranks_call made;
        attn_mpi_report report;
        double most = 0;
        ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
        made.mpi_params.placement = variant & 1;
        made.params.is_causal = variant >> 1 & 1;
        if (variant >> 2 & 1) {
            made.params.set = ATTN_SDPA_SET_WINDOW;
            made.params.window_left = 5;
            made.params.window_right = 3;
        }
        made.mpi_params.products_per_second = 1;
        made.mpi_params.bytes_per_second = 1e30;
        RANKS_ASSERT_STATUS(ranks_call_explain(&made, &report), ATTN_OK, "");
        for (int rank = 0; rank < ranks_count(); ++rank) {
            most = fmax(most, count_pairs(&made.params, rank, made.mpi_params.placement));
        }
        const double products = most * HEADS * 2 * FEATURES;
        RANKS_ASSERT(fabs(report.ring_seconds - products) < 1e-9 * products,
                     "variant %d: %g seconds, %g products", variant, report.ring_seconds, products);
    }
}

static void a_smaller_report_is_filled_as_far_as_it_goes(void) {
    ranks_call made;
    struct {
        attn_mpi_report known;
        uint64_t later;
    } larger;
    attn_mpi_report smaller = {.struct_size = 16};
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    larger.known.struct_size = sizeof larger;
    larger.later = 5;
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &made.query_view,
                                              &made.key_view, &made.value_view, NULL, NULL,
                                              &made.output_view, &larger.known),
                        ATTN_OK, "");
    RANKS_ASSERT(larger.later == 0 && larger.known.num_ranks == ranks_count(), "a larger report");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &made.query_view,
                                              &made.key_view, &made.value_view, NULL, NULL,
                                              &made.output_view, &smaller),
                        ATTN_ERROR_VALUE, "rank 0: report: expected struct_size");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &made.query_view,
                                              &made.key_view, &made.value_view, NULL, NULL,
                                              &made.output_view, NULL),
                        ATTN_ERROR_NULL, "rank 0: report: expected a struct to fill, got NULL");
}

/* Keys and values go round as forward, and the gradients of each block once from rank to rank until
 * they are home. */
static void a_backward_ring_reports_what_it_sends(void) {
    ranks_call made;
    attn_mpi_report before, after = {.struct_size = sizeof after};
    const uint64_t ranks = (uint64_t)ranks_count(), block = 2 * sizeof made.key;
    ranks_call_prepare_backward(&made, ATTN_MPI_SCHEME_RING, NULL);
    made.mpi_params.report = &after;
    RANKS_ASSERT_STATUS(ranks_call_explain_backward(&made, &before), ATTN_OK, "");
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    RANKS_ASSERT(memcmp(&before, &after, sizeof before) == 0, "the report of the run differs");
    RANKS_ASSERT(after.bytes_sent == (ranks > 1 ? block * (2 * ranks - 1) : 0), "sent %llu bytes",
                 (unsigned long long)after.bytes_sent);
    made.gradients.key = made.gradients.value = NULL;
    RANKS_ASSERT_STATUS(ranks_call_explain_backward(&made, &before), ATTN_OK, "");
    RANKS_ASSERT(before.bytes_sent == block * (ranks - 1), "sent %llu bytes without sums",
                 (unsigned long long)before.bytes_sent);
}

/* Five products backward are two forward and a half, where messages cost nothing. */
static void a_backward_pass_is_predicted_to_take_longer(void) {
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        ranks_call made;
        attn_mpi_report forward, backward;
        ranks_call_prepare_backward(&made, scheme, NULL);
        made.mpi_params.products_per_second = 1;
        made.mpi_params.bytes_per_second = 1e30;
        RANKS_ASSERT_STATUS(ranks_call_explain(&made, &forward), ATTN_OK, "");
        RANKS_ASSERT_STATUS(ranks_call_explain_backward(&made, &backward), ATTN_OK, "");
        const double before = scheme == ATTN_MPI_SCHEME_RING    ? forward.ring_seconds
                              : scheme == ATTN_MPI_SCHEME_HEADS ? forward.heads_seconds
                                                                : forward.decode_seconds;
        const double after = scheme == ATTN_MPI_SCHEME_RING    ? backward.ring_seconds
                             : scheme == ATTN_MPI_SCHEME_HEADS ? backward.heads_seconds
                                                               : backward.decode_seconds;
        RANKS_ASSERT(fabs(after - 2.5 * before) < 1e-6 * before, "scheme %d: %g and %g seconds",
                     (int)scheme, before, after);
    }
}

/* A call of so many rows and keys a rank, which is only described: its data is never looked at. */
static void describe_long(ranks_call *made, int64_t rows) {
    attn_tensor *const views[] = {&made->query_view,
                                  &made->key_view,
                                  &made->value_view,
                                  &made->output_view,
                                  &made->output_gradient_view,
                                  &made->query_gradient_view,
                                  &made->key_gradient_view,
                                  &made->value_gradient_view,
                                  &made->lse_view};
    const int64_t shape[] = {HEADS, rows, FEATURES};
    ranks_call_prepare(made, ATTN_MPI_SCHEME_RING);
    for (int i = 0; i < 9; ++i) {
        RANKS_ASSERT_STATUS(
            attn_tensor_init(views[i], views[i]->data, ATTN_DTYPE_FLOAT32, i < 8 ? 3 : 2, shape),
            ATTN_OK, "");
        views[i]->data = NULL;
    }
    made->params.lse = &made->lse_view;
    made->mpi_params.placement = ATTN_MPI_PLACEMENT_ZIGZAG;
    made->params.is_causal = 1;
}

/* The fullest rank of a zigzag ring has hardly more pairs than the mean one. */
static void zigzag_gives_all_ranks_the_same_work(void) {
    const int64_t rows = 4096, all = rows * ranks_count();
    ranks_call made;
    attn_mpi_report report;
    describe_long(&made, rows);
    made.mpi_params.products_per_second = 1;
    made.mpi_params.bytes_per_second = 1e30;
    RANKS_ASSERT_STATUS(ranks_call_explain(&made, &report), ATTN_OK, "");
    const double pairs = (double)all * (double)(all + 1) / 2 / ranks_count();
    const double mean = pairs * HEADS * 2 * FEATURES;
    RANKS_ASSERT(report.ring_seconds >= mean && report.ring_seconds <= 1.03 * mean,
                 "%g products, %g in the mean", report.ring_seconds, mean);
}

static size_t workspace_bytes(const ranks_call *made, MPI_Comm comm, int is_backward) {
    size_t bytes = 0;
    if (is_backward) {
        RANKS_ASSERT_STATUS(attn_mpi_sdpa_backward_workspace_bytes(
                                NULL, comm, &made->query_view, &made->key_view, &made->value_view,
                                &made->params, &made->mpi_params, &made->output_view,
                                &made->gradients, &bytes),
                            ATTN_OK, "");
        return bytes;
    }
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_workspace_bytes(
                            NULL, comm, &made->query_view, &made->key_view, &made->value_view,
                            &made->params, &made->mpi_params, &made->output_view, &bytes),
                        ATTN_OK, "");
    return bytes;
}

/* Forward two blocks of keys and values and two results; backward two such blocks, three of their
 * sums and the sums of own rows: however many ranks have the rest. */
static void memory_follows_from_own_rows(int is_backward) {
    const int64_t rows = 1 << 16;
    const size_t own = (size_t)rows * HEADS * FEATURES * sizeof(float);
    const size_t lse = (size_t)rows * HEADS * sizeof(float), of_core = 8 << 20;
    const size_t most = is_backward ? (4 + 6 + 3) * own : 4 * own + 2 * (own + lse);
    ranks_call made;
    MPI_Comm two;
    describe_long(&made, rows);
    const size_t bytes = workspace_bytes(&made, MPI_COMM_WORLD, is_backward);
    RANKS_ASSERT(bytes <= most + of_core, "%zu bytes, expected %zu", bytes, most);
    MPI_Comm_split(MPI_COMM_WORLD, ranks_rank() / 2, 0, &two);
    const size_t bytes_of_two = workspace_bytes(&made, two, is_backward);
    /* The last of an odd number of ranks is alone, and keeps no blocks. */
    RANKS_ASSERT(ranks_rank() > 1 || ranks_count() < 2 || bytes == bytes_of_two,
                 "%zu bytes among %d ranks, %zu among 2", bytes, ranks_count(), bytes_of_two);
    MPI_Comm_free(&two);
}

int main(int argc, char **argv) {
    ranks_begin(&argc, &argv, MPI_THREAD_SINGLE);
    setenv("ATTN_NUM_THREADS", "1", 1); /* of the default context, from here on */
    a_ring_reports_what_it_sends();
    a_window_ends_the_ring_early();
    a_window_reaches_the_last_key_of_a_block();
    the_cheaper_scheme_is_chosen();
    predictions_count_what_rows_see();
    zigzag_gives_all_ranks_the_same_work();
    memory_follows_from_own_rows(0);
    memory_follows_from_own_rows(1);
    a_smaller_report_is_filled_as_far_as_it_goes();
    a_backward_ring_reports_what_it_sends();
    a_backward_pass_is_predicted_to_take_longer();
    return ranks_end("reports");
}
