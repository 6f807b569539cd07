/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_sdpa.c: the public functions of the forward pass: prepare, run, agree, publish.
 */
#include "mpi_options.h"
#include "mpi_prepare.h"

static attn_status run_scheme(const attni_mpi_call *call, attni_mpi_plan *plan, char *block,
                              attni_mpi_partial *stored) {
    switch (call->scheme) {
    case ATTN_MPI_SCHEME_HEADS:
        return attni_mpi_heads_run(call, &plan->scheme.heads, block, stored);
    case ATTN_MPI_SCHEME_DECODE:
        return attni_mpi_decode_run(call, &plan->scheme.decode, block, stored);
    default:
        return attni_mpi_ring_run(call, &plan->scheme.ring, block, stored);
    }
}

static attn_status run(MPI_Comm comm, const attni_mpi_arguments *arguments) {
    attni_mpi_call call;
    attni_mpi_plan plan;
    attni_mpi_memory memory;
    attni_mpi_partial stored;
    attn_error_set(ATTN_OK, NULL);
    ATTNI_MPI_TRY(attni_mpi_prepare(comm, arguments, ATTN_OK, &call, &plan, &memory));
    attn_status status = run_scheme(&call, &plan, memory.base, &stored);
    if (status != ATTN_MPI_ERROR_MPI) {
        status = attni_mpi_agree(&call.link->group, status);
    }
    if (status == ATTN_OK) {
        attni_mpi_publish(&call, &stored);
        attni_mpi_report_run(&call, &plan);
    }
    attni_mpi_memory_release(call.context, &memory);
    return status;
}

attn_status attn_mpi_sdpa(attn_context *context, MPI_Comm comm, const attn_tensor *query,
                          const attn_tensor *key, const attn_tensor *value,
                          const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
                          const attn_tensor *output, void *workspace, size_t workspace_bytes) {
    const attni_mpi_arguments arguments = {.context = context,
                                           .query = query,
                                           .key = key,
                                           .value = value,
                                           .params = params,
                                           .mpi_params = mpi_params,
                                           .output = output,
                                           .workspace = workspace,
                                           .workspace_bytes = workspace_bytes,
                                           .looks_at_data = true};
    return run(comm, &arguments);
}

attn_status attn_mpi_sdpa_workspace_bytes(attn_context *context, MPI_Comm comm,
                                          const attn_tensor *query, const attn_tensor *key,
                                          const attn_tensor *value, const attn_sdpa_params *params,
                                          const attn_mpi_params *mpi_params,
                                          const attn_tensor *output, size_t *bytes) {
    const attni_mpi_arguments arguments = {.context = context,
                                           .query = query,
                                           .key = key,
                                           .value = value,
                                           .params = params,
                                           .mpi_params = mpi_params,
                                           .output = output};
    return attni_mpi_tell_bytes(comm, &arguments, bytes);
}

attn_status attn_mpi_sdpa_explain(attn_context *context, MPI_Comm comm, const attn_tensor *query,
                                  const attn_tensor *key, const attn_tensor *value,
                                  const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
                                  const attn_tensor *output, attn_mpi_report *report) {
    const attni_mpi_arguments arguments = {.context = context,
                                           .query = query,
                                           .key = key,
                                           .value = value,
                                           .params = params,
                                           .mpi_params = mpi_params,
                                           .output = output};
    return attni_mpi_tell_plan(comm, &arguments, report);
}

attn_status attn_mpi_sdpa_f(attn_context *context, MPI_Fint comm, const attn_tensor *query,
                            const attn_tensor *key, const attn_tensor *value,
                            const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
                            const attn_tensor *output, void *workspace, size_t workspace_bytes) {
    return attn_mpi_sdpa(context, attni_mpi_communicator_of(comm), query, key, value, params,
                         mpi_params, output, workspace, workspace_bytes);
}

attn_status attn_mpi_sdpa_workspace_bytes_f(attn_context *context, MPI_Fint comm,
                                            const attn_tensor *query, const attn_tensor *key,
                                            const attn_tensor *value,
                                            const attn_sdpa_params *params,
                                            const attn_mpi_params *mpi_params,
                                            const attn_tensor *output, size_t *bytes) {
    return attn_mpi_sdpa_workspace_bytes(context, attni_mpi_communicator_of(comm), query, key,
                                         value, params, mpi_params, output, bytes);
}

attn_status attn_mpi_sdpa_explain_f(attn_context *context, MPI_Fint comm, const attn_tensor *query,
                                    const attn_tensor *key, const attn_tensor *value,
                                    const attn_sdpa_params *params,
                                    const attn_mpi_params *mpi_params, const attn_tensor *output,
                                    attn_mpi_report *report) {
    return attn_mpi_sdpa_explain(context, attni_mpi_communicator_of(comm), query, key, value,
                                 params, mpi_params, output, report);
}
