/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_backward.c: the public functions of the backward pass: prepare, run, add up, agree, publish.
 */
#include "mpi_options.h"
#include "mpi_prepare.h"

/* The calling rank's terms. *status: of its own work; the returned one: of MPI. */
static attn_status run_scheme(const attni_mpi_call *call, attni_mpi_plan *plan, char *block,
                              attn_status *status) {
    const attni_mpi_sums *const sums = &plan->sums;
    switch (call->scheme) {
    case ATTN_MPI_SCHEME_HEADS:
        return attni_mpi_heads_backward_run(call, &plan->scheme.heads_backward, sums, block,
                                            status);
    case ATTN_MPI_SCHEME_DECODE:
        *status = attni_mpi_decode_backward_run(call, &plan->scheme.decode_backward, sums, block);
        return ATTN_OK;
    default:
        return attni_mpi_ring_backward_run(call, &plan->scheme.ring_backward, sums, block, status);
    }
}

/* Leaves what is stored in the block. A rank that has failed takes part to the end. */
static attn_status sum_up(const attni_mpi_call *call, attni_mpi_plan *plan, char *block) {
    attn_status status = ATTN_OK;
    attni_mpi_sums_clear(&plan->sums, block);
    ATTNI_MPI_TRY(run_scheme(call, plan, block, &status));
    ATTNI_MPI_TRY(attni_mpi_sums_share(call, &plan->sums, block));
    if (status == ATTN_OK) {
        status = attni_mpi_sums_store(call, &plan->sums, block);
    }
    return attni_mpi_agree(&call->link->group, status);
}

attn_status attn_mpi_sdpa_backward(attn_context *context, MPI_Comm comm, const attn_tensor *query,
                                   const attn_tensor *key, const attn_tensor *value,
                                   const attn_sdpa_params *params,
                                   const attn_mpi_params *mpi_params, const attn_tensor *output,
                                   const attn_sdpa_gradients *gradients, void *workspace,
                                   size_t workspace_bytes) {
    const attni_mpi_arguments arguments = {.context = context,
                                           .query = query,
                                           .key = key,
                                           .value = value,
                                           .params = params,
                                           .mpi_params = mpi_params,
                                           .output = output,
                                           .workspace = workspace,
                                           .workspace_bytes = workspace_bytes,
                                           .looks_at_data = true,
                                           .is_backward = true,
                                           .gradients = gradients};
    attni_mpi_call call;
    attni_mpi_plan plan;
    attni_mpi_memory memory;
    attn_error_set(ATTN_OK, NULL);
    ATTNI_MPI_TRY(attni_mpi_prepare(comm, &arguments, ATTN_OK, &call, &plan, &memory));
    const attn_status status = sum_up(&call, &plan, memory.base);
    if (status == ATTN_OK) {
        attni_mpi_sums_publish(&call, &plan.sums, memory.base);
        attni_mpi_report_run(&call, &plan);
    }
    attni_mpi_memory_release(call.context, &memory);
    return status;
}

/* What is asked without data. */
static attni_mpi_arguments arguments_of(attn_context *context, const attn_tensor *query,
                                        const attn_tensor *key, const attn_tensor *value,
                                        const attn_sdpa_params *params,
                                        const attn_mpi_params *mpi_params,
                                        const attn_tensor *output,
                                        const attn_sdpa_gradients *gradients) {
    return (attni_mpi_arguments){.context = context,
                                 .query = query,
                                 .key = key,
                                 .value = value,
                                 .params = params,
                                 .mpi_params = mpi_params,
                                 .output = output,
                                 .is_backward = true,
                                 .gradients = gradients};
}

attn_status attn_mpi_sdpa_backward_workspace_bytes(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, size_t *bytes) {
    const attni_mpi_arguments arguments =
        arguments_of(context, query, key, value, params, mpi_params, output, gradients);
    return attni_mpi_tell_bytes(comm, &arguments, bytes);
}

attn_status attn_mpi_sdpa_backward_explain(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, attn_mpi_report *report) {
    const attni_mpi_arguments arguments =
        arguments_of(context, query, key, value, params, mpi_params, output, gradients);
    return attni_mpi_tell_plan(comm, &arguments, report);
}

attn_status attn_mpi_sdpa_backward_f(attn_context *context, MPI_Fint comm, const attn_tensor *query,
                                     const attn_tensor *key, const attn_tensor *value,
                                     const attn_sdpa_params *params,
                                     const attn_mpi_params *mpi_params, const attn_tensor *output,
                                     const attn_sdpa_gradients *gradients, void *workspace,
                                     size_t workspace_bytes) {
    return attn_mpi_sdpa_backward(context, attni_mpi_communicator_of(comm), query, key, value,
                                  params, mpi_params, output, gradients, workspace,
                                  workspace_bytes);
}

attn_status attn_mpi_sdpa_backward_workspace_bytes_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, size_t *bytes) {
    return attn_mpi_sdpa_backward_workspace_bytes(context, attni_mpi_communicator_of(comm), query,
                                                  key, value, params, mpi_params, output, gradients,
                                                  bytes);
}

attn_status attn_mpi_sdpa_backward_explain_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, attn_mpi_report *report) {
    return attn_mpi_sdpa_backward_explain(context, attni_mpi_communicator_of(comm), query, key,
                                          value, params, mpi_params, output, gradients, report);
}
