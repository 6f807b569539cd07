/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_backward_calls.c: what surrounds the numbers of a backward pass: workspaces, Fortran
 * handles, overlap, what is refused, and failures of MPI itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "patient_mpi.h"
#include "ranks_call.h"

static attn_status workspace_bytes(ranks_call *made, size_t *bytes) {
    return attn_mpi_sdpa_backward_workspace_bytes(
        NULL, MPI_COMM_WORLD, &made->query_view, &made->key_view, &made->value_view, &made->params,
        &made->mpi_params, &made->output_view, &made->gradients, bytes);
}

static attn_status run_in(ranks_call *made, void *workspace, size_t bytes) {
    return attn_mpi_sdpa_backward(NULL, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                                  &made->value_view, &made->params, &made->mpi_params,
                                  &made->output_view, &made->gradients, workspace, bytes);
}

static void a_workspace_is_checked(int32_t scheme) {
    ranks_call made;
    size_t bytes = 0;
    char line[80];
    const int is_last = ranks_rank() == ranks_count() - 1;
    ranks_call_prepare_backward(&made, scheme, NULL);
    RANKS_ASSERT_STATUS(workspace_bytes(&made, &bytes), ATTN_OK, "");
    RANKS_ASSERT_STATUS(workspace_bytes(&made, NULL), ATTN_ERROR_NULL,
                        "rank 0: bytes: expected a place");
    char *const memory = malloc(bytes);
    RANKS_ASSERT(memory != NULL, "no memory");
    snprintf(line, sizeof line, "rank %d: workspace_bytes: expected at least", ranks_count() - 1);
    RANKS_ASSERT_STATUS(run_in(&made, memory, bytes - (size_t)is_last), ATTN_ERROR_WORKSPACE, line);
    snprintf(line, sizeof line, "rank %d: workspace: overlaps gradients.query", ranks_count() - 1);
    RANKS_ASSERT_STATUS(run_in(&made, is_last ? (void *)made.query_gradient : memory, bytes),
                        ATTN_ERROR_OVERLAP, line);
    ranks_call_assert_gradients_untouched(&made);
    free(memory);
}

static void a_fortran_handle_is_the_communicator(void) {
    ranks_call made, by_handle;
    size_t bytes = 0, bytes_by_handle = 1;
    const MPI_Fint handle = MPI_Comm_c2f(MPI_COMM_WORLD);
    attn_mpi_report report = {.struct_size = sizeof report}, report_by_handle = report;
    ranks_call_prepare_backward(&made, ATTN_MPI_SCHEME_RING, NULL);
    ranks_call_prepare_backward(&by_handle, ATTN_MPI_SCHEME_RING, NULL);
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    RANKS_ASSERT_STATUS(
        attn_mpi_sdpa_backward_f(NULL, handle, &by_handle.query_view, &by_handle.key_view,
                                 &by_handle.value_view, &by_handle.params, &by_handle.mpi_params,
                                 &by_handle.output_view, &by_handle.gradients, NULL, 0),
        ATTN_OK, "");
    RANKS_ASSERT(memcmp(made.key_gradient, by_handle.key_gradient, sizeof made.key_gradient) == 0,
                 "other bits");
    RANKS_ASSERT_STATUS(workspace_bytes(&made, &bytes), ATTN_OK, "");
    RANKS_ASSERT_STATUS(attn_mpi_sdpa_backward_workspace_bytes_f(
                            NULL, handle, &made.query_view, &made.key_view, &made.value_view,
                            &made.params, &made.mpi_params, &made.output_view, &made.gradients,
                            &bytes_by_handle),
                        ATTN_OK, "");
    RANKS_ASSERT_STATUS(ranks_call_explain_backward(&made, &report), ATTN_OK, "");
    RANKS_ASSERT_STATUS(
        attn_mpi_sdpa_backward_explain_f(NULL, handle, &made.query_view, &made.key_view,
                                         &made.value_view, &made.params, &made.mpi_params,
                                         &made.output_view, &made.gradients, &report_by_handle),
        ATTN_OK, "");
    RANKS_ASSERT(bytes == bytes_by_handle && bytes == report.workspace_bytes &&
                     memcmp(&report, &report_by_handle, sizeof report) == 0,
                 "%zu and %zu bytes", bytes, bytes_by_handle);
}

/* All is read before gradients are written, so they may lie where queries, keys and values were;
 * and side by side in one buffer, as those of a packed projection. */
static void gradients_may_overlap_what_is_read(void) {
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        ranks_call made, in_place;
        ranks_call_prepare_backward(&made, scheme, NULL);
        ranks_call_prepare_backward(&in_place, scheme, NULL);
        in_place.query_gradient_view.data = in_place.query;
        in_place.key_gradient_view.data = in_place.key;
        in_place.value_gradient_view.data = in_place.value;
        RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
        RANKS_ASSERT_STATUS(ranks_call_run_backward(&in_place, NULL, MPI_COMM_WORLD), ATTN_OK, "");
        RANKS_ASSERT(memcmp(made.query_gradient, in_place.query, sizeof made.query) == 0 &&
                         memcmp(made.key_gradient, in_place.key, sizeof made.key) == 0 &&
                         memcmp(made.value_gradient, in_place.value, sizeof made.value) == 0,
                     "scheme %d: other bits", (int)scheme);
    }
}

static void gradients_side_by_side_are_apart(void) {
    static float packed[3 * ELEMENTS];
    ranks_call made;
    attn_tensor *views[3];
    ranks_call_prepare_backward(&made, ATTN_MPI_SCHEME_RING, NULL);
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    views[0] = &made.query_gradient_view;
    views[1] = &made.key_gradient_view;
    views[2] = &made.value_gradient_view;
    for (int i = 0; i < 3; ++i) {
        views[i]->data = packed + (ptrdiff_t)i * FEATURES;
        views[i]->strides[0] *= 3;
        views[i]->strides[1] *= 3;
    }
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), ATTN_OK, "");
    for (int i = 0; i < ELEMENTS; ++i) {
        RANKS_ASSERT(packed[i / FEATURES * 3 * FEATURES + FEATURES + i % FEATURES] ==
                         made.key_gradient[i],
                     "element %d differs", i);
    }
    views[1]->data = packed + 1;
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_OVERLAP,
                        "rank 0: gradients.key: overlaps gradients.query");
}

/* Where each rank has one row. */
static void a_mask_of_one_row_is_not_guessed_at(void) {
    ranks_call made;
    float mask[KEYS * 8] = {0}, gradient[KEYS * 8];
    const int64_t shape[] = {1, KEYS * ranks_count()};
    attn_tensor mask_view, gradient_view;
    if (ranks_count() == 1) {
        return;
    }
    RANKS_ASSERT(attn_tensor_init(&mask_view, mask, ATTN_DTYPE_FLOAT32, 2, shape) == ATTN_OK &&
                     attn_tensor_init(&gradient_view, gradient, ATTN_DTYPE_FLOAT32, 2, shape) ==
                         ATTN_OK,
                 "%s", attn_last_error());
    ranks_call_prepare_backward(&made, ATTN_MPI_SCHEME_RING, NULL);
    made.query_view.shape[1] = made.output_view.shape[1] = made.lse_view.shape[1] = 1;
    made.output_gradient_view.shape[1] = made.query_gradient_view.shape[1] = 1;
    made.params.bias = &mask_view;
    made.gradients.bias = &gradient_view;
    RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD),
                        ATTN_ERROR_UNSUPPORTED,
                        "rank 0: gradients.bias: expected NULL where each rank has one row");
    ranks_call_assert_gradients_untouched(&made);
}

/* Blocks whose borders no part has. */
static void blocks_across_ranks_are_refused(void) {
    ranks_call made;
    unsigned char blocks[64];
    char line[128];
    memset(blocks, ATTN_BLOCK_VISIBLE, sizeof blocks);
    const int64_t columns = (KEYS * ranks_count() + 2) / 3;
    const int64_t shape[] = {2, columns}, zigzag_shape[] = {3, 1};
    attn_tensor view;
    RANKS_ASSERT(attn_tensor_init(&view, blocks, ATTN_DTYPE_UINT8, 2, shape) == ATTN_OK, "%s",
                 attn_last_error());
    ranks_call_prepare_backward(&made, ATTN_MPI_SCHEME_RING, NULL);
    made.params.block_mask = &view;
    made.params.block_rows = 4;
    made.params.block_columns = 3;
    if (ranks_count() > 1) {
        snprintf(line, sizeof line,
                 "rank 0: block_mask: expected the keys of each rank to begin at a multiple of "
                 "block_columns, 3, got key %d of rank 1",
                 KEYS);
        RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_UNSUPPORTED,
                            line);
        RANKS_ASSERT_STATUS(ranks_call_run_backward(&made, NULL, MPI_COMM_WORLD),
                            ATTN_ERROR_UNSUPPORTED, line);
    }
    RANKS_ASSERT(attn_tensor_init(&view, blocks, ATTN_DTYPE_UINT8, 2, zigzag_shape) == ATTN_OK,
                 "%s", attn_last_error());
    made.mpi_params.placement = ATTN_MPI_PLACEMENT_ZIGZAG;
    made.params.block_rows = 3;
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_UNSUPPORTED,
                        "rank 0: block_mask: expected a rank's second stretch of rows to begin at "
                        "a multiple of block_rows, 3, got row 4");
    made.mpi_params.scheme = ATTN_MPI_SCHEME_HEADS;
    RANKS_ASSERT_STATUS(ranks_call_run(&made, NULL, MPI_COMM_WORLD), ATTN_ERROR_UNSUPPORTED,
                        "rank 0: mask, bias, block_mask: expected one row for all queries");
    ranks_call_assert_gradients_untouched(&made);
}

/* Every call of a function of MPI fails, on all ranks at once, wherever a scheme makes one. */
static void failures_of_mpi_are_statuses(int32_t scheme, MPI_Comm comm) {
    for (int function = 0; function < PATIENT_COMM_DUP; ++function) {
        int has_failed = 1;
        for (int n = 1; has_failed; ++n) {
            ranks_call made;
            char line[64];
            ranks_call_prepare_backward(&made, scheme, NULL);
            patient_fail((enum patient_function)function, n);
            const attn_status status = ranks_call_run_backward(&made, NULL, comm);
            has_failed = patient_has_failed();
            patient_fail((enum patient_function)function, 0);
            snprintf(line, sizeof line, "%s: ", patient_names[function]);
            RANKS_ASSERT_STATUS(status, has_failed ? ATTN_MPI_ERROR_MPI : ATTN_OK,
                                has_failed ? line : "");
            if (has_failed) {
                ranks_call_assert_gradients_untouched(&made);
            }
        }
    }
}

int main(int argc, char **argv) {
    MPI_Comm comm;
    ranks_begin(&argc, &argv, MPI_THREAD_SINGLE);
    setenv("ATTN_NUM_THREADS", "1", 1); /* of the default context, from here on */
    a_fortran_handle_is_the_communicator();
    gradients_may_overlap_what_is_read();
    gradients_side_by_side_are_apart();
    a_mask_of_one_row_is_not_guessed_at();
    blocks_across_ranks_are_refused();
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    for (int32_t scheme = ATTN_MPI_SCHEME_RING; scheme <= ATTN_MPI_SCHEME_DECODE; ++scheme) {
        a_workspace_is_checked(scheme);
        failures_of_mpi_are_statuses(scheme, comm);
    }
    MPI_Comm_free(&comm);
    return ranks_end("backward calls");
}
