/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_calls.c: what surrounds the numbers: when MPI runs and at which level, communicators of
 * all kinds and their end, reports, workspaces, Fortran handles, and failures of MPI itself.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "patient_mpi.h"
#include "ranks_program.h"

enum { HEADS = 4, ROWS = 8, KEYS = 8, FEATURES = 4, ELEMENTS = HEADS * ROWS * FEATURES };

typedef struct call {
    float query[ELEMENTS], key[ELEMENTS], value[ELEMENTS], output[ELEMENTS];
    attn_tensor query_view, key_view, value_view, output_view;
    attn_sdpa_params params;
    attn_mpi_params mpi_params;
} call;

static void prepare(call *made, int32_t scheme) {
    const int64_t shape[] = {HEADS, ROWS, FEATURES};
    attn_tensor *const views[] = {&made->query_view, &made->key_view, &made->value_view,
                                  &made->output_view};
    float *const memory[] = {made->query, made->key, made->value, made->output};
    memset(made, 0, sizeof *made);
    for (int i = 0; i < ELEMENTS; ++i) {
        made->query[i] = (float)(i % 7) - 3;
        made->key[i] = (float)(i % 5) - 2;
        made->value[i] = (float)(i % 11) - 5;
        made->output[i] = 77;
    }
    for (int i = 0; i < 4; ++i) {
        RANKS_ASSERT(attn_tensor_init(views[i], memory[i], ATTN_DTYPE_FLOAT32, 3, shape) == ATTN_OK,
                     "%s", attn_last_error());
    }
    made->params.struct_size = sizeof made->params;
    made->mpi_params = (attn_mpi_params){.struct_size = sizeof made->mpi_params, .scheme = scheme};
}

static attn_status run(call *made, attn_context *context, MPI_Comm comm) {
    return attn_mpi_sdpa(context, comm, &made->query_view, &made->key_view, &made->value_view,
                         &made->params, &made->mpi_params, &made->output_view, NULL, 0);
}

static attn_status explain(call *made, attn_mpi_report *report) {
    *report = (attn_mpi_report){.struct_size = sizeof *report};
    return attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                                 &made->value_view, &made->params, &made->mpi_params,
                                 &made->output_view, report);
}

static void assert_untouched(const call *made) {
    for (int i = 0; i < ELEMENTS; ++i) {
        RANKS_ASSERT(made->output[i] == 77, "output was touched at %d", i);
    }
}

static void assert_state(const char *line) {
    call made;
    size_t bytes;
    attn_mpi_report report = {.struct_size = sizeof report};
    prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_WORLD), ATTN_MPI_ERROR_STATE, line);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_f(NULL, 0, &made.query_view, &made.key_view, &made.value_view,
                                        NULL, NULL, &made.output_view, NULL, 0),
                        ATTN_MPI_ERROR_STATE, line);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_workspace_bytes(NULL, MPI_COMM_WORLD, &made.query_view,
                                                      &made.key_view, &made.value_view, NULL, NULL,
                                                      &made.output_view, &bytes),
                        ATTN_MPI_ERROR_STATE, line);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &made.query_view,
                                              &made.key_view, &made.value_view, NULL, NULL,
                                              &made.output_view, &report),
                        ATTN_MPI_ERROR_STATE, line);
    assert_untouched(&made);
}

static void communicators_that_are_none_are_refused(void) {
    call made;
    prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_NULL), ATTN_MPI_ERROR_STATE,
                        "comm: expected a communicator, got MPI_COMM_NULL");
    if (ranks_count() >= 2) {
        MPI_Comm half, between;
        const int side = ranks_rank() % 2;
        MPI_Comm_split(MPI_COMM_WORLD, side, ranks_rank(), &half);
        MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - side, 0, &between);
        RANKS_ASSERT_STATUS(run(&made, NULL, between), ATTN_MPI_ERROR_STATE,
                            "comm: expected an intracommunicator, got one between two groups");
        MPI_Comm_free(&between);
        MPI_Comm_free(&half);
    }
    assert_untouched(&made);
}

/* MPI was started for one thread; rank 0 alone has a context of two. */
static void threads_beside_a_single_level_are_refused(void) {
    call made;
    attn_context *context;
    int level;
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = ranks_rank() == 0 ? 2 : 1};
    MPI_Query_thread(&level);
    if (level != MPI_THREAD_SINGLE) {
        printf("not tested: this MPI gives level %d where MPI_THREAD_SINGLE is asked for\n", level);
        return;
    }
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(run(&made, context, MPI_COMM_WORLD), ATTN_MPI_ERROR_THREAD_LEVEL,
                        "rank 0: comm: expected MPI_THREAD_FUNNELED or more of MPI_Init_thread "
                        "beside a context of 2 threads, got MPI_THREAD_SINGLE");
    assert_untouched(&made);
    attn_context_destroy(context);
}

static attn_context *one_thread(void) {
    attn_context *context;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 1};
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    return context;
}

/* Halves of the world attend at the same time, each for itself. */
static void communicators_are_apart(attn_context *context) {
    call in_world, in_half;
    MPI_Comm half;
    MPI_Comm_split(MPI_COMM_WORLD, ranks_rank() % 2, ranks_rank(), &half);
    prepare(&in_world, ATTN_MPI_SCHEME_RING);
    prepare(&in_half, ATTN_MPI_SCHEME_RING);
    for (int i = 0; i < 3; ++i) {
        RANKS_ASSERT_STATUS(run(&in_half, context, half), ATTN_OK, "");
        RANKS_ASSERT_STATUS(run(&in_world, context, MPI_COMM_WORLD), ATTN_OK, "");
    }
    /* All ranks have the same keys, so weights are spread over more copies of the same values. */
    for (int i = 0; i < ELEMENTS; ++i) {
        RANKS_ASSERT(fabsf(in_half.output[i] - in_world.output[i]) < 1e-5f, "element %d differs",
                     i);
    }
    MPI_Comm_free(&half);
}

/* More communicators than an MPI has at a time. */
static void a_freed_communicator_leaves_nothing(attn_context *context) {
    call made;
    prepare(&made, ATTN_MPI_SCHEME_AUTO);
    for (int i = 0; i < 4000; ++i) {
        MPI_Comm own;
        RANKS_ASSERT(MPI_Comm_dup(MPI_COMM_SELF, &own) == MPI_SUCCESS, "MPI_Comm_dup failed");
        RANKS_ASSERT_STATUS(run(&made, context, own), ATTN_OK, "");
        MPI_Comm_free(&own);
    }
}

static void a_fortran_handle_is_the_communicator(attn_context *context) {
    call made, by_handle;
    size_t bytes = 0, bytes_by_handle = 1;
    const MPI_Fint handle = MPI_Comm_c2f(MPI_COMM_WORLD);
    attn_mpi_report report = {.struct_size = sizeof report};
    prepare(&made, ATTN_MPI_SCHEME_RING);
    prepare(&by_handle, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(run(&made, context, MPI_COMM_WORLD), ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_f(context, handle, &by_handle.query_view, &by_handle.key_view,
                                        &by_handle.value_view, &by_handle.params,
                                        &by_handle.mpi_params, &by_handle.output_view, NULL, 0),
                        ATTN_OK, "");
    RANKS_ASSERT(memcmp(made.output, by_handle.output, sizeof made.output) == 0, "other bits");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_workspace_bytes(context, MPI_COMM_WORLD, &made.query_view,
                                                      &made.key_view, &made.value_view,
                                                      &made.params, &made.mpi_params,
                                                      &made.output_view, &bytes),
                        ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_workspace_bytes_f(
                            context, handle, &made.query_view, &made.key_view, &made.value_view,
                            &made.params, &made.mpi_params, &made.output_view, &bytes_by_handle),
                        ATTN_OK, "");
    RANKS_ASSERT(bytes == bytes_by_handle, "%zu and %zu bytes", bytes, bytes_by_handle);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_explain_f(context, handle, &made.query_view, &made.key_view,
                                                &made.value_view, &made.params, &made.mpi_params,
                                                &made.output_view, &report),
                        ATTN_OK, "");
    RANKS_ASSERT(report.workspace_bytes == bytes, "the report has %llu bytes",
                 (unsigned long long)report.workspace_bytes);
}

/* ---- reports ---- */

static void a_ring_reports_what_it_sends(void) {
    call made;
    attn_mpi_report before, after = {.struct_size = sizeof after};
    prepare(&made, ATTN_MPI_SCHEME_RING);
    made.mpi_params.report = &after;
    RANKS_ASSERT_STATUS(explain(&made, &before), ATTN_OK, "");
    RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
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
    call made;
    attn_mpi_report report;
    prepare(&made, ATTN_MPI_SCHEME_RING);
    made.params.set = ATTN_SDPA_SET_WINDOW;
    made.params.window_left = KEYS;
    made.params.is_causal = 1;
    RANKS_ASSERT_STATUS(explain(&made, &report), ATTN_OK, "");
    const int64_t steps = ranks_count() < 2 ? 1 : 2;
    RANKS_ASSERT(report.num_steps == steps, "%d steps", (int)report.num_steps);
    RANKS_ASSERT(report.bytes_sent == 2 * sizeof made.key * (uint64_t)(steps - 1),
                 "sent %llu bytes", (unsigned long long)report.bytes_sent);
}

/* The first row of a rank sees its own key and the last one of the rank before, and no other: with
 * scores of 0 it is the mean of their values. */
static void a_window_reaches_the_last_key_of_a_block(void) {
    call made;
    prepare(&made, ATTN_MPI_SCHEME_RING);
    memset(made.query, 0, sizeof made.query);
    for (int i = 0; i < ELEMENTS; ++i) {
        made.value[i] = (float)(ranks_rank() * ROWS + i / FEATURES % ROWS);
    }
    made.params.set = ATTN_SDPA_SET_WINDOW;
    made.params.window_left = 1;
    made.params.is_causal = 1;
    RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    for (int i = 0; i < ELEMENTS; ++i) {
        const int row = ranks_rank() * ROWS + i / FEATURES % ROWS;
        const float mean = row == 0 ? 0 : (float)row - 0.5f;
        RANKS_ASSERT(fabsf(made.output[i] - mean) < 1e-5f, "row %d is %g", row, made.output[i]);
    }
}

/* A message that costs much speaks for heads, which sends fewer bytes to fewer; one that costs
 * nothing for the ring, which then hides behind the work. */
static void the_cheaper_scheme_is_chosen(void) {
    call made;
    attn_mpi_report report;
    if (ranks_count() < 2) {
        return;
    }
    prepare(&made, ATTN_MPI_SCHEME_AUTO);
    made.mpi_params.bytes_per_second = 1e3;
    RANKS_ASSERT_STATUS(explain(&made, &report), ATTN_OK, "");
    RANKS_ASSERT(report.scheme == (report.ring_seconds <= report.heads_seconds
                                       ? ATTN_MPI_SCHEME_RING
                                       : ATTN_MPI_SCHEME_HEADS),
                 "chose %d although ring %g, heads %g", (int)report.scheme, report.ring_seconds,
                 report.heads_seconds);
    made.mpi_params.bytes_per_second = 1e15;
    made.mpi_params.latency_seconds = 1e-12;
    made.mpi_params.products_per_second = 1;
    RANKS_ASSERT_STATUS(explain(&made, &report), ATTN_OK, "");
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

/* Where messages cost nothing and a product a second, the ring takes the busiest rank's products. */
static void predictions_count_what_rows_see(void) {
    for (int variant = 0; variant < 8; ++variant) {
        call made;
        attn_mpi_report report;
        double most = 0;
        prepare(&made, ATTN_MPI_SCHEME_RING);
        made.mpi_params.placement = variant & 1;
        made.params.is_causal = variant >> 1 & 1;
        if (variant >> 2 & 1) {
            made.params.set = ATTN_SDPA_SET_WINDOW;
            made.params.window_left = 5;
            made.params.window_right = 3;
        }
        made.mpi_params.products_per_second = 1;
        made.mpi_params.bytes_per_second = 1e30;
        RANKS_ASSERT_STATUS(explain(&made, &report), ATTN_OK, "");
        for (int rank = 0; rank < ranks_count(); ++rank) {
            most = fmax(most, count_pairs(&made.params, rank, made.mpi_params.placement));
        }
        const double products = most * HEADS * 2 * FEATURES;
        RANKS_ASSERT(fabs(report.ring_seconds - products) < 1e-9 * products,
                     "variant %d: %g seconds, %g products", variant, report.ring_seconds, products);
    }
}

static void a_smaller_report_is_filled_as_far_as_it_goes(void) {
    call made;
    struct {
        attn_mpi_report known;
        uint64_t later;
    } larger;
    attn_mpi_report smaller = {.struct_size = 16};
    prepare(&made, ATTN_MPI_SCHEME_RING);
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

/* ---- a sequence that takes some time ---- */

enum { LONG_HEADS = 2, LONG_ROWS = 900, LONG_FEATURES = 64 };

static float *long_tensor(int64_t rows, int64_t first, int which) {
    float *const data = malloc((size_t)(LONG_HEADS * rows * LONG_FEATURES) * sizeof *data);
    RANKS_ASSERT(data != NULL, "no memory");
    for (int64_t i = 0; i < LONG_HEADS * rows * LONG_FEATURES; ++i) {
        const int64_t row = first + i / LONG_FEATURES % rows, head = i / LONG_FEATURES / rows;
        data[i] = sinf((float)(row * (3 + which) + 7 * head + 5 * (i % LONG_FEATURES)));
    }
    return data;
}

/* Attended in pieces, so that messages go on meanwhile, it is the one call's. By sdpa.h both are off by
 * no more than (T + 16 + m + 2 * 73 * 8) 2^-24, T = 2,700 keys, no number above 1 and no sum of 64
 * products above 64. */
static void a_long_sequence_is_attended_in_pieces(attn_context *context) {
    const int64_t all = (int64_t)LONG_ROWS * ranks_count(),
                  first = (int64_t)LONG_ROWS * ranks_rank();
    float *const own[] = {long_tensor(LONG_ROWS, first, 0), long_tensor(LONG_ROWS, first, 1),
                          long_tensor(LONG_ROWS, first, 2), long_tensor(LONG_ROWS, first, 3)};
    float *const whole[] = {long_tensor(all, 0, 0), long_tensor(all, 0, 1), long_tensor(all, 0, 2),
                            long_tensor(all, 0, 3)};
    const int64_t own_shape[] = {LONG_HEADS, LONG_ROWS, LONG_FEATURES};
    const int64_t whole_shape[] = {LONG_HEADS, all, LONG_FEATURES};
    attn_tensor own_views[4], whole_views[4];
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
    const attn_mpi_params mpi_params = {.struct_size = sizeof mpi_params,
                                        .scheme = ATTN_MPI_SCHEME_RING};
    for (int i = 0; i < 4; ++i) {
        RANKS_ASSERT(
            attn_tensor_init(&own_views[i], own[i], ATTN_DTYPE_FLOAT32, 3, own_shape) == ATTN_OK &&
                attn_tensor_init(&whole_views[i], whole[i], ATTN_DTYPE_FLOAT32, 3, whole_shape) ==
                    ATTN_OK,
            "%s", attn_last_error());
    }
    RANKS_ASSERT_STATUS(attn_mpi_sdpa(context, MPI_COMM_WORLD, &own_views[0], &own_views[1],
                                      &own_views[2], &params, &mpi_params, &own_views[3], NULL, 0),
                        ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_sdpa(context, &whole_views[0], &whole_views[1], &whole_views[2],
                                  &params, &whole_views[3], NULL, 0),
                        ATTN_OK, "");
    for (int64_t i = 0; i < LONG_HEADS * LONG_ROWS * LONG_FEATURES; ++i) {
        const int64_t head = i / LONG_FEATURES / LONG_ROWS, row = i / LONG_FEATURES % LONG_ROWS;
        const float expected =
            whole[3][(head * all + first + row) * LONG_FEATURES + i % LONG_FEATURES];
        RANKS_ASSERT(fabsf(own[3][i] - expected) < 5e-4f, "head %d, row %d: expected %g, got %g",
                     (int)head, (int)row, expected, own[3][i]);
    }
    for (int i = 0; i < 4; ++i) {
        free(own[i]);
        free(whole[i]);
    }
}

/* ---- workspaces ---- */

static void a_workspace_is_checked(void) {
    call made;
    size_t bytes = 0;
    prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_workspace_bytes(NULL, MPI_COMM_WORLD, &made.query_view,
                                                      &made.key_view, &made.value_view,
                                                      &made.params, &made.mpi_params,
                                                      &made.output_view, &bytes),
                        ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_workspace_bytes(NULL, MPI_COMM_WORLD, &made.query_view,
                                                      &made.key_view, &made.value_view,
                                                      &made.params, &made.mpi_params,
                                                      &made.output_view, NULL),
                        ATTN_ERROR_NULL, "rank 0: bytes: expected a place");
    char *const memory = malloc(bytes);
    const int is_last = ranks_rank() == ranks_count() - 1;
    char line[80];
    RANKS_ASSERT(memory != NULL, "no memory");
    snprintf(line, sizeof line, "rank %d: workspace_bytes: expected at least", ranks_count() - 1);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa(NULL, MPI_COMM_WORLD, &made.query_view, &made.key_view,
                                      &made.value_view, &made.params, &made.mpi_params,
                                      &made.output_view, memory, bytes - (size_t)is_last),
                        ATTN_ERROR_WORKSPACE, line);
    snprintf(line, sizeof line, "rank %d: workspace: overlaps value", ranks_count() - 1);
    RANKS_ASSERT_STATUS(attn_mpi_sdpa(NULL, MPI_COMM_WORLD, &made.query_view, &made.key_view,
                                      &made.value_view, &made.params, &made.mpi_params,
                                      &made.output_view, is_last ? (void *)made.value : memory,
                                      is_last ? sizeof made.value + bytes : bytes),
                        ATTN_ERROR_OVERLAP, line);
    assert_untouched(&made);
    free(memory);
}

/* Results may lie where the queries were: all inputs have been read by then. */
static void an_output_may_overlap_an_input(void) {
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        call made, in_place;
        prepare(&made, scheme);
        prepare(&in_place, scheme);
        in_place.output_view = in_place.query_view;
        RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
        RANKS_ASSERT_STATUS(run(&in_place, NULL, MPI_COMM_WORLD), ATTN_OK, "");
        RANKS_ASSERT(memcmp(made.output, in_place.query, sizeof made.output) == 0, "other bits");
    }
}

static void what_a_scheme_cannot_do_is_refused(void) {
    call made;
    const int64_t shape[] = {ROWS, KEYS * ranks_count()};
    attn_tensor mask;
    float *const numbers = calloc((size_t)(shape[0] * shape[1]), sizeof *numbers);
    RANKS_ASSERT(attn_tensor_init(&mask, numbers, ATTN_DTYPE_FLOAT32, 2, shape) == ATTN_OK, "%s",
                 attn_last_error());
    prepare(&made, ATTN_MPI_SCHEME_HEADS);
    made.params.mask = &mask;
    made.params.mask_kind = ATTN_MASK_ADDITIVE;
    RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_UNSUPPORTED,
                        "rank 0: mask, bias, block_mask: expected one row for all queries");
    if (ranks_count() >= 2) {
        prepare(&made, ATTN_MPI_SCHEME_DECODE);
        made.query_view.shape[1] -= ranks_rank() == 1;
        made.output_view.shape[1] = made.query_view.shape[1];
        RANKS_ASSERT_STATUS(run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_VALUE,
                            "rank 0: query: expected as many rows on all ranks with "
                            "ATTN_MPI_SCHEME_DECODE, got 8 on rank 0 and 7 on rank 1");
    }
    assert_untouched(&made);
    free(numbers);
}

/* ---- failures of MPI ---- */

/* Every call of a function of MPI fails, on all ranks at once, wherever a scheme makes one. */
static void failures_of_mpi_are_statuses(int32_t scheme, MPI_Comm comm) {
    for (int function = 0; function < PATIENT_COMM_DUP; ++function) {
        int has_failed = 1;
        for (int n = 1; has_failed; ++n) {
            call made;
            char line[64];
            prepare(&made, scheme);
            patient_fail((enum patient_function)function, n);
            const attn_status status = run(&made, NULL, comm);
            has_failed = patient_has_failed();
            patient_fail((enum patient_function)function, 0);
            snprintf(line, sizeof line, "%s: ", patient_names[function]);
            RANKS_ASSERT_STATUS(status, has_failed ? ATTN_MPI_ERROR_MPI : ATTN_OK,
                                has_failed ? line : "");
            if (has_failed) {
                assert_untouched(&made);
            }
        }
    }
}

static void a_communicator_that_cannot_be_duplicated_is_a_status(MPI_Comm comm) {
    call made;
    prepare(&made, ATTN_MPI_SCHEME_RING);
    patient_fail(PATIENT_COMM_DUP, 1);
    RANKS_ASSERT_STATUS(run(&made, NULL, comm), ATTN_MPI_ERROR_MPI, "MPI_Comm_dup: ");
    patient_fail(PATIENT_ALLREDUCE, 1);
    RANKS_ASSERT_STATUS(run(&made, NULL, comm), ATTN_MPI_ERROR_MPI, "MPI_Allreduce: ");
    patient_fail(PATIENT_ALLREDUCE, 0);
    assert_untouched(&made);
    RANKS_ASSERT_STATUS(run(&made, NULL, comm), ATTN_OK, "");
}

static void statuses_have_names(void) {
    const struct {
        attn_status status;
        const char *name;
    } names[] = {{ATTN_OK, "ATTN_OK"},
                 {ATTN_ERROR_SHAPE, "ATTN_ERROR_SHAPE"},
                 {1000, "ATTN_MPI_ERROR_STATE"},
                 {1001, "ATTN_MPI_ERROR_MPI"},
                 {1002, "ATTN_MPI_ERROR_DISAGREE"},
                 {1003, "ATTN_MPI_ERROR_THREAD_LEVEL"},
                 {1004, "ATTN_ERROR_UNKNOWN"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        RANKS_ASSERT(strcmp(attn_mpi_status_name(names[i].status), names[i].name) == 0, "%s",
                     attn_mpi_status_name(names[i].status));
    }
}

int main(int argc, char **argv) {
    static const char not_running[] = "comm: expected MPI to be initialised and not finalised";
    MPI_Comm comm;
    statuses_have_names();
    assert_state(not_running);
    ranks_begin(&argc, &argv, MPI_THREAD_SINGLE);
    threads_beside_a_single_level_are_refused();
    setenv("ATTN_NUM_THREADS", "1", 1); /* of the default context, from here on */
    attn_context *const context = one_thread();
    communicators_that_are_none_are_refused();
    communicators_are_apart(context);
    a_freed_communicator_leaves_nothing(context);
    a_fortran_handle_is_the_communicator(context);
    a_ring_reports_what_it_sends();
    a_window_ends_the_ring_early();
    a_window_reaches_the_last_key_of_a_block();
    the_cheaper_scheme_is_chosen();
    predictions_count_what_rows_see();
    a_smaller_report_is_filled_as_far_as_it_goes();
    a_long_sequence_is_attended_in_pieces(context);
    a_workspace_is_checked();
    an_output_may_overlap_an_input();
    what_a_scheme_cannot_do_is_refused();
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    a_communicator_that_cannot_be_duplicated_is_a_status(comm);
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        failures_of_mpi_are_statuses(scheme, comm);
    }
    MPI_Comm_free(&comm);
    attn_context_destroy(context);
    ranks_end("calls");
    assert_state(not_running);
    return 0;
}
