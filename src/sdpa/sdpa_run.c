/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_run.c: hands a planned call to its engine and reports what ran.
 */
#include "base/versioned_struct.h"
#include "sdpa/sdpa_problem.h"

attn_status attni_sdpa_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_sdpa_plan *plan, char *scratch) {
    int64_t num_blocks = 0;
    ATTNI_TRY(plan->engine == ATTN_ENGINE_FUSED
                  ? attni_engine_fused_run(context, problem, plan, scratch, &num_blocks)
                  : attni_engine_blas_run(context, problem, plan, scratch, &num_blocks));
    if (problem->report != NULL) {
        attn_sdpa_report report = attni_sdpa_report_of(context, plan);
        report.num_blocks = num_blocks;
        attni_struct_write(problem->report, &report, sizeof report);
    }
    return ATTN_OK;
}
