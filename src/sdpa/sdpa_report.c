/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_report.c: the two engines' plans in one form.
 */
#include "sdpa/sdpa_report.h"

/* The fused engine multiplies by kernels of its own, so that no BLAS takes part. */
static void report_fused(const attni_fused_plan *plan, attn_sdpa_report *report) {
    report->gemm = ATTN_GEMM_NATIVE;
    report->packs = plan->packs;
    report->row_block = plan->row_block;
    report->num_blocks = plan->num_items;
}

static void report_blas(const attni_blas_plan *plan, attn_sdpa_report *report) {
    report->gemm = plan->gemm;
    report->packs = plan->packs;
    report->row_block = plan->row_block;
    report->num_blocks = plan->num_blocks;
}

attn_sdpa_report attni_sdpa_report_of(const attn_context *context, const attni_sdpa_plan *plan) {
    size_t bytes = 0;
    (void)attni_layout_bytes(&plan->layout, &bytes);
    attn_sdpa_report report = {
        .struct_size = sizeof report,
        .engine = plan->engine,
        .workspace_bytes = bytes,
        .kernels = attni_context_kernels(context)->name,
        .reason = plan->reason,
    };
    if (plan->engine == ATTN_ENGINE_FUSED) {
        report_fused(&plan->fused, &report);
    } else {
        report_blas(&plan->blas, &report);
    }
    report.depends_on_blas_threads = report.gemm == ATTN_GEMM_BLAS;
    return report;
}
