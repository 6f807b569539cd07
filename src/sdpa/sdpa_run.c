/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_run.c: hands a planned call to its engine and reports what ran.
 */
#include "sdpa/sdpa_run.h"

#include "base/versioned_struct.h"
#include "blas/blas_engine.h"
#include "fused/fused_engine.h"
#include "sdpa/sdpa_report.h"

attn_status attni_sdpa_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_sdpa_plan *plan, char *scratch, attn_sdpa_report *report) {
    int64_t num_blocks = 0;
    if (plan->scores.num_slots > 1) {
        /* After the engine, whose outputs are written then, nothing may fail for want of a thread.
         */
        ATTNI_TRY(attni_start_threads(context));
    }
    ATTNI_TRY(plan->engine == ATTN_ENGINE_FUSED
                  ? attni_fused_run(context, problem, &plan->fused, scratch, &num_blocks)
                  : attni_blas_run(context, problem, &plan->blas, scratch, &num_blocks));
    ATTNI_TRY(attni_scores_run(context, problem, &plan->scores, scratch));
    if (report != NULL) {
        attn_sdpa_report done = attni_sdpa_report_of(context, plan);
        done.num_blocks = num_blocks;
        attni_struct_write(report, &done, sizeof done);
    }
    return ATTN_OK;
}
