/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_run.c: hands a planned call to its engine and reports what ran.
 */
#include "sdpa/sdpa_run.h"

#include "base/versioned_struct.h"
#include "blas/blas_engine.h"
#include "fused/fused_engine.h"
#include "sdpa/sdpa_report.h"

/* As many query rows for each sequence. */
static attn_status run_once(attn_context *context, const attni_sdpa_problem *problem,
                            const attni_sdpa_plan *plan, char *scratch, int64_t *num_blocks) {
    if (plan->scores.num_slots > 1) {
        /* After the engine, whose outputs are written then, nothing may fail for want of a thread.
         */
        ATTNI_TRY(attni_start_threads(context));
    }
    ATTNI_TRY(plan->engine == ATTN_ENGINE_FUSED
                  ? attni_fused_run(context, problem, &plan->fused, scratch, num_blocks)
                  : attni_blas_run(context, problem, &plan->blas, scratch, num_blocks));
    return attni_scores_run(context, problem, &plan->scores, scratch);
}

/* The fused engine has all runs of equally long sequences together; what else there is comes one
 * run after the other. */
static attn_status run_runs(attn_context *context, const attni_sdpa_problem *problem,
                            const attni_sdpa_plan *plan, char *scratch, int64_t *num_blocks) {
    attni_query_runs runs = attni_query_runs_of(problem);
    attni_sdpa_problem run;
    const bool has_rest = plan->engine == ATTN_ENGINE_BLAS || problem->scores.is_present;
    if (plan->starts_threads) {
        /* From here on outputs are written, and a failure could not leave them untouched. */
        ATTNI_TRY(attni_start_threads(context));
    }
    if (plan->engine == ATTN_ENGINE_FUSED) {
        ATTNI_TRY(attni_fused_run_runs(context, problem, &plan->runs, scratch, num_blocks));
    }
    while (has_rest && attni_next_run(&runs, &run)) {
        attni_sdpa_plan own;
        int64_t own_blocks = 0;
        ATTNI_TRY(attni_sdpa_plan_run(context, &run, plan, &own));
        if (own.engine == ATTN_ENGINE_BLAS) {
            ATTNI_TRY(attni_blas_run(context, &run, &own.blas, scratch, &own_blocks));
        }
        ATTNI_TRY(attni_scores_run(context, &run, &own.scores, scratch));
        *num_blocks += own_blocks;
    }
    return ATTN_OK;
}

attn_status attni_sdpa_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_sdpa_plan *plan, char *scratch, attn_sdpa_report *report) {
    int64_t num_blocks = 0;
    ATTNI_TRY(problem->query_starts.is_present
                  ? run_runs(context, problem, plan, scratch, &num_blocks)
                  : run_once(context, problem, plan, scratch, &num_blocks));
    if (report != NULL) {
        attn_sdpa_report done = attni_sdpa_report_of(context, plan);
        done.num_blocks = num_blocks;
        attni_struct_write(report, &done, sizeof done);
    }
    return ATTN_OK;
}
