/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_sdpa.c: the public functions: check, agree, plan, agree, run, agree, publish.
 */
#include "mpi_agreement.h"
#include "mpi_check.h"
#include "mpi_facts.h"
#include "mpi_options.h"
#include "mpi_plan.h"

/* Local; what a rank finds here is agreed upon by the caller. */
static attn_status check_and_plan(const attni_mpi_arguments *arguments, attni_mpi_link *link,
                                  attni_mpi_call *call, attni_mpi_plan *plan,
                                  attni_mpi_memory *memory) {
    size_t needed;
    ATTNI_MPI_TRY(attni_mpi_choose_scheme(link, call, plan));
    ATTNI_MPI_TRY(attni_mpi_check_whole(arguments, call));
    ATTNI_MPI_TRY(attni_mpi_make_plan(call, plan));
    ATTNI_MPI_TRY(attni_mpi_layout_bytes(&plan->layout, &needed));
    if (!arguments->looks_at_data) {
        return ATTN_OK;
    }
    ATTNI_MPI_TRY(attni_mpi_check_overlap(arguments, call, needed));
    return attni_mpi_memory_take(call->context, &plan->layout, arguments->workspace,
                                 arguments->workspace_bytes, memory);
}

/*
 * Collective: all that comes before data travels. `status` is what the public function has found by
 * itself. After a failure on any rank nothing is left to be released.
 */
static attn_status prepare(MPI_Comm comm, const attni_mpi_arguments *arguments, attn_status status,
                           attni_mpi_call *call, attni_mpi_plan *plan, attni_mpi_memory *memory) {
    attni_mpi_link *link;
    int32_t num_threads = 1;
    char detail[ATTNI_MPI_DETAIL_BYTES];
    *memory = (attni_mpi_memory){0};
    *call = (attni_mpi_call){0};
    attn_last_error_copy(detail, sizeof detail);
    ATTNI_MPI_TRY(attni_mpi_link_of(comm, &link));
    if (status == ATTN_OK) {
        status = attni_mpi_check_own(arguments, call, &num_threads);
    } else {
        attn_error_set(status, detail);
    }
    ATTNI_MPI_TRY(attni_mpi_share_call(status, num_threads, link, call));
    status = check_and_plan(arguments, link, call, plan, memory);
    status = attni_mpi_share_numbers(status, call);
    if (status != ATTN_OK) {
        attni_mpi_memory_release(call->context, memory);
    }
    return status;
}

static attn_status run_scheme(const attni_mpi_call *call, const attni_mpi_plan *plan, char *block,
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
    ATTNI_MPI_TRY(prepare(comm, arguments, ATTN_OK, &call, &plan, &memory));
    attn_status status = run_scheme(&call, &plan, memory.base, &stored);
    if (status != ATTN_MPI_ERROR_MPI) {
        status = attni_mpi_agree(&call.link->group, status);
    }
    if (status == ATTN_OK) {
        attni_mpi_publish(&call, &stored);
        if (call.report != NULL) {
            attn_mpi_report report;
            attni_mpi_make_report(&call, &plan, &report);
            attni_mpi_write_report(&report, call.report);
        }
    }
    attni_mpi_memory_release(call.context, &memory);
    return status;
}

attn_status attn_mpi_sdpa(attn_context *context, MPI_Comm comm, const attn_tensor *query,
                          const attn_tensor *key, const attn_tensor *value,
                          const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
                          const attn_tensor *output, void *workspace, size_t workspace_bytes) {
    const attni_mpi_arguments arguments = {context,    query,  key,       value,           params,
                                           mpi_params, output, workspace, workspace_bytes, true};
    return run(comm, &arguments);
}

attn_status attn_mpi_sdpa_workspace_bytes(attn_context *context, MPI_Comm comm,
                                          const attn_tensor *query, const attn_tensor *key,
                                          const attn_tensor *value, const attn_sdpa_params *params,
                                          const attn_mpi_params *mpi_params,
                                          const attn_tensor *output, size_t *bytes) {
    const attni_mpi_arguments arguments = {context,    query,  key,  value, params,
                                           mpi_params, output, NULL, 0,     false};
    attni_mpi_call call;
    attni_mpi_plan plan;
    attni_mpi_memory memory;
    attn_status status = attn_error_set(ATTN_OK, NULL);
    if (bytes == NULL) {
        status =
            attni_mpi_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    ATTNI_MPI_TRY(prepare(comm, &arguments, status, &call, &plan, &memory));
    return attni_mpi_layout_bytes(&plan.layout, bytes);
}

attn_status attn_mpi_sdpa_explain(attn_context *context, MPI_Comm comm, const attn_tensor *query,
                                  const attn_tensor *key, const attn_tensor *value,
                                  const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
                                  const attn_tensor *output, attn_mpi_report *report) {
    const attni_mpi_arguments arguments = {context,    query,  key,  value, params,
                                           mpi_params, output, NULL, 0,     false};
    attni_mpi_call call;
    attni_mpi_plan plan;
    attni_mpi_memory memory;
    attn_mpi_report made;
    attn_error_set(ATTN_OK, NULL);
    ATTNI_MPI_TRY(prepare(comm, &arguments, attni_mpi_check_report(report), &call, &plan, &memory));
    attni_mpi_make_report(&call, &plan, &made);
    attni_mpi_write_report(&made, report);
    return ATTN_OK;
}

/* A handle means something only while MPI runs. */
static MPI_Comm communicator_of(MPI_Fint comm) {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    return initialized && !finalized ? MPI_Comm_f2c(comm) : MPI_COMM_NULL;
}

attn_status attn_mpi_sdpa_f(attn_context *context, MPI_Fint comm, const attn_tensor *query,
                            const attn_tensor *key, const attn_tensor *value,
                            const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
                            const attn_tensor *output, void *workspace, size_t workspace_bytes) {
    return attn_mpi_sdpa(context, communicator_of(comm), query, key, value, params, mpi_params,
                         output, workspace, workspace_bytes);
}

attn_status attn_mpi_sdpa_workspace_bytes_f(attn_context *context, MPI_Fint comm,
                                            const attn_tensor *query, const attn_tensor *key,
                                            const attn_tensor *value,
                                            const attn_sdpa_params *params,
                                            const attn_mpi_params *mpi_params,
                                            const attn_tensor *output, size_t *bytes) {
    return attn_mpi_sdpa_workspace_bytes(context, communicator_of(comm), query, key, value, params,
                                         mpi_params, output, bytes);
}

attn_status attn_mpi_sdpa_explain_f(attn_context *context, MPI_Fint comm, const attn_tensor *query,
                                    const attn_tensor *key, const attn_tensor *value,
                                    const attn_sdpa_params *params,
                                    const attn_mpi_params *mpi_params, const attn_tensor *output,
                                    attn_mpi_report *report) {
    return attn_mpi_sdpa_explain(context, communicator_of(comm), query, key, value, params,
                                 mpi_params, output, report);
}
