/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_call.c: makes and runs small calls.
 */
#include "ranks_call.h"

#include <string.h>

void ranks_call_prepare(ranks_call *made, int32_t scheme) {
    const int64_t shape[] = {HEADS, ROWS, FEATURES};
    attn_tensor *const views[] = {&made->query_view,
                                  &made->key_view,
                                  &made->value_view,
                                  &made->output_view,
                                  &made->output_gradient_view,
                                  &made->query_gradient_view,
                                  &made->key_gradient_view,
                                  &made->value_gradient_view,
                                  &made->lse_view};
    float *const memory[] = {made->query,
                             made->key,
                             made->value,
                             made->output,
                             made->output_gradient,
                             made->query_gradient,
                             made->key_gradient,
                             made->value_gradient,
                             made->lse};
    memset(made, 0, sizeof *made);
    for (int i = 0; i < ELEMENTS; ++i) {
        made->query[i] = (float)(i % 7) - 3;
        made->key[i] = (float)(i % 5) - 2;
        made->value[i] = (float)(i % 11) - 5;
        made->output_gradient[i] = (float)(i % 3) - 1;
        made->output[i] = made->query_gradient[i] = made->key_gradient[i] = 77;
        made->value_gradient[i] = 77;
    }
    for (int i = 0; i < 9; ++i) {
        RANKS_ASSERT(attn_tensor_init(views[i], memory[i], ATTN_DTYPE_FLOAT32, i < 8 ? 3 : 2,
                                      shape) == ATTN_OK,
                     "%s", attn_last_error());
    }
    made->gradients = (attn_sdpa_gradients){.struct_size = sizeof made->gradients,
                                            .output = &made->output_gradient_view,
                                            .query = &made->query_gradient_view,
                                            .key = &made->key_gradient_view,
                                            .value = &made->value_gradient_view};
    made->params.struct_size = sizeof made->params;
    made->mpi_params = (attn_mpi_params){.struct_size = sizeof made->mpi_params, .scheme = scheme};
}

attn_status ranks_call_run(ranks_call *made, attn_context *context, MPI_Comm comm) {
    return attn_mpi_sdpa(context, comm, &made->query_view, &made->key_view, &made->value_view,
                         &made->params, &made->mpi_params, &made->output_view, NULL, 0);
}

attn_status ranks_call_explain(ranks_call *made, attn_mpi_report *report) {
    *report = (attn_mpi_report){.struct_size = sizeof *report};
    return attn_mpi_sdpa_explain(NULL, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                                 &made->value_view, &made->params, &made->mpi_params,
                                 &made->output_view, report);
}

void ranks_call_assert_untouched(const ranks_call *made) {
    for (int i = 0; i < ELEMENTS; ++i) {
        RANKS_ASSERT(made->output[i] == 77, "output was touched at %d", i);
    }
}

void ranks_call_prepare_backward(ranks_call *made, int32_t scheme, attn_context *context) {
    ranks_call_prepare(made, scheme);
    made->params.lse = &made->lse_view;
    RANKS_ASSERT_STATUS(ranks_call_run(made, context, MPI_COMM_WORLD), ATTN_OK, "");
}

attn_status ranks_call_run_backward(ranks_call *made, attn_context *context, MPI_Comm comm) {
    return attn_mpi_sdpa_backward(context, comm, &made->query_view, &made->key_view,
                                  &made->value_view, &made->params, &made->mpi_params,
                                  &made->output_view, &made->gradients, NULL, 0);
}

attn_status ranks_call_explain_backward(ranks_call *made, attn_mpi_report *report) {
    *report = (attn_mpi_report){.struct_size = sizeof *report};
    return attn_mpi_sdpa_backward_explain(NULL, MPI_COMM_WORLD, &made->query_view, &made->key_view,
                                          &made->value_view, &made->params, &made->mpi_params,
                                          &made->output_view, &made->gradients, report);
}

void ranks_call_assert_gradients_untouched(const ranks_call *made) {
    for (int i = 0; i < ELEMENTS; ++i) {
        RANKS_ASSERT(made->query_gradient[i] == 77 && made->key_gradient[i] == 77 &&
                         made->value_gradient[i] == 77,
                     "a gradient was touched at %d", i);
    }
}

attn_context *ranks_one_thread(void) {
    attn_context *context;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 1};
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    return context;
}
