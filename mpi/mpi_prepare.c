/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_prepare.c: check, agree, plan, agree.
 */
#include "mpi_prepare.h"

#include "mpi_agreement.h"
#include "mpi_check.h"
#include "mpi_facts.h"
#include "mpi_options.h"

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

attn_status attni_mpi_prepare(MPI_Comm comm, const attni_mpi_arguments *arguments,
                              attn_status status, attni_mpi_call *call, attni_mpi_plan *plan,
                              attni_mpi_memory *memory) {
    attni_mpi_link *link;
    int32_t num_threads = 1;
    char detail[ATTNI_MPI_DETAIL_BYTES];
    *memory = (attni_mpi_memory){0};
    *call = (attni_mpi_call){0};
    *plan = (attni_mpi_plan){.reason = NULL};
    attn_last_error_copy(detail, sizeof detail);
    ATTNI_MPI_TRY(attni_mpi_link_of(comm, &link));
    if (status == ATTN_OK) {
        status = attni_mpi_check_own(arguments, call, &num_threads);
    } else {
        attn_error_set(status, detail);
    }
    ATTNI_MPI_TRY(attni_mpi_share_call(status, num_threads, link, call));
    status = check_and_plan(arguments, link, call, plan, memory);
    status = attni_mpi_share_numbers(status, call, plan->sums.shared_counts);
    if (status != ATTN_OK) {
        attni_mpi_memory_release(call->context, memory);
    }
    return status;
}

attn_status attni_mpi_tell_bytes(MPI_Comm comm, const attni_mpi_arguments *arguments,
                                 size_t *bytes) {
    attni_mpi_call call;
    attni_mpi_plan plan;
    attni_mpi_memory memory;
    attn_status status = attn_error_set(ATTN_OK, NULL);
    if (bytes == NULL) {
        status =
            attni_mpi_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    ATTNI_MPI_TRY(attni_mpi_prepare(comm, arguments, status, &call, &plan, &memory));
    return attni_mpi_layout_bytes(&plan.layout, bytes);
}

attn_status attni_mpi_tell_plan(MPI_Comm comm, const attni_mpi_arguments *arguments,
                                attn_mpi_report *report) {
    attni_mpi_call call;
    attni_mpi_plan plan;
    attni_mpi_memory memory;
    attn_mpi_report made;
    attn_error_set(ATTN_OK, NULL);
    ATTNI_MPI_TRY(
        attni_mpi_prepare(comm, arguments, attni_mpi_check_report(report), &call, &plan, &memory));
    attni_mpi_make_report(&call, &plan, &made);
    attni_mpi_write_report(&made, report);
    return ATTN_OK;
}

void attni_mpi_report_run(const attni_mpi_call *call, const attni_mpi_plan *plan) {
    attn_mpi_report report;
    if (call->report != NULL) {
        attni_mpi_make_report(call, plan, &report);
        attni_mpi_write_report(&report, call->report);
    }
}

MPI_Comm attni_mpi_communicator_of(MPI_Fint comm) {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    return initialized && !finalized ? MPI_Comm_f2c(comm) : MPI_COMM_NULL;
}
