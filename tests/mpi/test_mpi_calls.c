/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_calls.c: what surrounds the numbers: when MPI runs and at which level, communicators of
 * all kinds and their end, workspaces, Fortran handles, and failures of MPI itself.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "patient_mpi.h"
#include "ranks_call.h"

static void assert_state(const char *line) {
    ranks_call made;
    size_t bytes;
    attn_mpi_report report = {.struct_size = sizeof report};
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_MPI_ERROR_STATE, line);
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
    ranks_call_assert_untouched(&made);
}

static void communicators_that_are_none_are_refused(void) {
    ranks_call made;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_NULL), ATTN_MPI_ERROR_STATE,
                        "comm: expected a communicator, got MPI_COMM_NULL");
    if (ranks_count() >= 2) {
        MPI_Comm half, between;
        const int side = ranks_rank() % 2;
        MPI_Comm_split(MPI_COMM_WORLD, side, ranks_rank(), &half);
        MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - side, 0, &between);
        RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, between), ATTN_MPI_ERROR_STATE,
                            "comm: expected an intracommunicator, got one between two groups");
        MPI_Comm_free(&between);
        MPI_Comm_free(&half);
    }
    ranks_call_assert_untouched(&made);
}

/* MPI was started for one thread; rank 0 alone has a context of two. */
static void threads_beside_a_single_level_are_refused(void) {
    ranks_call made;
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
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, context, MPI_COMM_WORLD), ATTN_MPI_ERROR_THREAD_LEVEL,
                        "rank 0: comm: expected MPI_THREAD_FUNNELED or more of MPI_Init_thread "
                        "beside a context of 2 threads, got MPI_THREAD_SINGLE");
    ranks_call_assert_untouched(&made);
    attn_context_destroy(context);
}

/* Halves of the world attend at the same time, each for itself. */
static void communicators_are_apart(attn_context *context) {
    ranks_call in_world, in_half;
    MPI_Comm half;
    MPI_Comm_split(MPI_COMM_WORLD, ranks_rank() % 2, ranks_rank(), &half);
    ranks_call_prepare(&in_world, ATTN_MPI_SCHEME_RING);
    ranks_call_prepare(&in_half, ATTN_MPI_SCHEME_RING);
    for (int i = 0; i < 3; ++i) {
        RANKS_ASSERT_STATUS(ranks_call_run(&in_half, context, half), ATTN_OK, "");
        RANKS_ASSERT_STATUS(ranks_call_run(&in_world, context, MPI_COMM_WORLD), ATTN_OK, "");
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
    ranks_call made;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_AUTO);
    for (int i = 0; i < 4000; ++i) {
        MPI_Comm own;
        RANKS_ASSERT(MPI_Comm_dup(MPI_COMM_SELF, &own) == MPI_SUCCESS, "MPI_Comm_dup failed");
        RANKS_ASSERT_STATUS(ranks_call_run(&made, context, own), ATTN_OK, "");
        MPI_Comm_free(&own);
    }
}

static void a_fortran_handle_is_the_communicator(attn_context *context) {
    ranks_call made, by_handle;
    size_t bytes = 0, bytes_by_handle = 1;
    const MPI_Fint handle = MPI_Comm_c2f(MPI_COMM_WORLD);
    attn_mpi_report report = {.struct_size = sizeof report};
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    ranks_call_prepare(&by_handle, ATTN_MPI_SCHEME_RING);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, context, MPI_COMM_WORLD), ATTN_OK, "");
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

/* ---- workspaces ---- */

static void a_workspace_is_checked(void) {
    ranks_call made;
    size_t bytes = 0;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
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
    ranks_call_assert_untouched(&made);
    free(memory);
}

/* Results may lie where the queries were: all inputs have been read by then. */
static void an_output_may_overlap_an_input(void) {
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        ranks_call made, in_place;
        ranks_call_prepare(&made, scheme);
        ranks_call_prepare(&in_place, scheme);
        in_place.output_view = in_place.query_view;
        RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
        RANKS_ASSERT_STATUS(ranks_call_run(&in_place, NULL, MPI_COMM_WORLD), ATTN_OK, "");
        RANKS_ASSERT(memcmp(made.output, in_place.query, sizeof made.output) == 0, "other bits");
    }
}

static void what_a_scheme_cannot_do_is_refused(void) {
    ranks_call made;
    const int64_t shape[] = {ROWS, KEYS * ranks_count()};
    attn_tensor mask;
    float *const numbers = calloc((size_t)(shape[0] * shape[1]), sizeof *numbers);
    RANKS_ASSERT(attn_tensor_init(&mask, numbers, ATTN_DTYPE_FLOAT32, 2, shape) == ATTN_OK, "%s",
                 attn_last_error());
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_HEADS);
    made.params.mask = &mask;
    made.params.mask_kind = ATTN_MASK_ADDITIVE;
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_UNSUPPORTED,
                        "rank 0: mask, bias, block_mask: expected one row for all queries");
    if (ranks_count() >= 2) {
        ranks_call_prepare(&made, ATTN_MPI_SCHEME_DECODE);
        made.query_view.shape[1] -= ranks_rank() == 1;
        made.output_view.shape[1] = made.query_view.shape[1];
        RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_VALUE,
                            "rank 0: query: expected as many rows on all ranks with "
                            "ATTN_MPI_SCHEME_DECODE, got 8 on rank 0 and 7 on rank 1");
    }
    ranks_call_assert_untouched(&made);
    free(numbers);
}

/* ---- failures of MPI ---- */

/* Every call of a function of MPI fails, on all ranks at once, wherever a scheme makes one. */
static void failures_of_mpi_are_statuses(int32_t scheme, MPI_Comm comm) {
    for (int function = 0; function < PATIENT_COMM_DUP; ++function) {
        int has_failed = 1;
        for (int n = 1; has_failed; ++n) {
            ranks_call made;
            char line[64];
            ranks_call_prepare(&made, scheme);
            patient_fail((enum patient_function)function, n);
            const attn_status status = ranks_call_run(&made, NULL, comm);
            has_failed = patient_has_failed();
            patient_fail((enum patient_function)function, 0);
            snprintf(line, sizeof line, "%s: ", patient_names[function]);
            RANKS_ASSERT_STATUS(status, has_failed ? ATTN_MPI_ERROR_MPI : ATTN_OK,
                                has_failed ? line : "");
            if (has_failed) {
                ranks_call_assert_untouched(&made);
            }
        }
    }
}

/* The first look after messages, which all ranks make. */
static void a_look_that_fails_is_a_status(MPI_Comm comm) {
    ranks_call made;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    patient_fail(PATIENT_TESTALL, 1);
    const attn_status status = ranks_call_run(&made, NULL, comm);
    patient_fail(PATIENT_TESTALL, 0);
    RANKS_ASSERT_STATUS(status, ranks_count() > 1 ? ATTN_MPI_ERROR_MPI : ATTN_OK,
                        ranks_count() > 1 ? "MPI_Testall: " : "");
    if (ranks_count() > 1) {
        ranks_call_assert_untouched(&made);
    }
}

static void a_communicator_that_cannot_be_duplicated_is_a_status(MPI_Comm comm) {
    ranks_call made;
    ranks_call_prepare(&made, ATTN_MPI_SCHEME_RING);
    patient_fail(PATIENT_COMM_DUP, 1);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, comm), ATTN_MPI_ERROR_MPI, "MPI_Comm_dup: ");
    patient_fail(PATIENT_ALLREDUCE, 1);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, comm), ATTN_MPI_ERROR_MPI, "MPI_Allreduce: ");
    patient_fail(PATIENT_ALLREDUCE, 0);
    ranks_call_assert_untouched(&made);
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, comm), ATTN_OK, "");
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
    attn_context *const context = ranks_one_thread();
    communicators_that_are_none_are_refused();
    communicators_are_apart(context);
    a_freed_communicator_leaves_nothing(context);
    a_fortran_handle_is_the_communicator(context);
    a_workspace_is_checked();
    an_output_may_overlap_an_input();
    what_a_scheme_cannot_do_is_refused();
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    a_communicator_that_cannot_be_duplicated_is_a_status(comm);
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        failures_of_mpi_are_statuses(scheme, comm);
    }
    a_look_that_fails_is_a_status(comm);
    MPI_Comm_free(&comm);
    attn_context_destroy(context);
    ranks_end("calls");
    assert_state(not_running);
    return 0;
}
