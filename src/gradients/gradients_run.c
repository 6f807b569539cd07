/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_run.c: the passes of a backward pass, each on the context's threads.
 */
#include "gradients/gradients_run.h"

#include <string.h>

#include "gradients/gradients_clear.h"
#include "gradients/gradients_inputs.h"
#include "gradients/gradients_masks.h"
#include "gradients/gradients_means.h"
#include "gradients/gradients_options.h"
#include "gradients/gradients_staged.h"
#include "gradients/gradients_state.h"
#include "gemm/strips.h"

static attn_status run_inputs(attn_context *context, attni_gradients_engine *engine) {
    const attni_gradients_plan *plan = engine->plan;
    const attni_sdpa_problem *gradients = &engine->problem->gradients;
    if (!gradients->query.is_present && !gradients->key.is_present &&
        !gradients->value.is_present) {
        return ATTN_OK;
    }
    if (plan->has_masks_beside) {
        ATTNI_TRY(attni_parallel_items(context, plan->num_slots,
                                       attni_gradients_mask_clear_items(engine),
                                       attni_gradients_mask_clear_item, engine));
    }
    if (!plan->whole_heads || plan->pairs_wait) {
        memset(engine->scratch + plan->progress_offset, 0,
               (size_t)(plan->num_pairs * plan->key_blocks) * sizeof(int64_t));
    }
    ATTNI_TRY(attni_parallel_items(context, plan->num_slots, plan->num_items,
                                   attni_gradients_inputs_item, engine));
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        attni_gradients_staged staged = {engine, which};
        if (plan->staged[which]) {
            ATTNI_TRY(attni_parallel_items(context, plan->num_slots,
                                           attni_gradients_staged_items(&staged),
                                           attni_gradients_staged_item, &staged));
        }
    }
    return ATTN_OK;
}

static attn_status run_option(attn_context *context, const attni_gradients_engine *engine,
                              attni_gradient_option which, int32_t mask) {
    attni_gradients_option option = {engine, which, mask};
    return attni_parallel_items(context, engine->plan->num_slots,
                                attni_gradients_option_items(&option), attni_gradients_option_item,
                                &option);
}

static attn_status run_options(attn_context *context, const attni_gradients_engine *engine) {
    const attni_sdpa_problem *gradients = &engine->problem->gradients;
    for (int32_t mask = 0; mask < ATTNI_MAX_MASKS; ++mask) {
        if (gradients->masks[mask].kind != ATTN_MASK_NONE && !engine->plan->masks_beside[mask]) {
            ATTNI_TRY(run_option(context, engine,
                                 mask == ATTNI_POSITION_BIAS ? ATTNI_OF_DISTANCES : ATTNI_OF_MASK,
                                 mask));
        }
    }
    if (gradients->alibi_slopes.is_present) {
        ATTNI_TRY(run_option(context, engine, ATTNI_OF_SLOPES, 0));
    }
    return gradients->sinks.is_present ? run_option(context, engine, ATTNI_OF_SINKS, 0) : ATTN_OK;
}

static attni_gradients_engine engine_of(const attn_context *context,
                                        const attni_gradients_problem *problem,
                                        const attni_gradients_plan *plan, char *scratch) {
    const attni_kernel_set *set = attni_context_kernels(context);
    const int32_t dtype = problem->call.score_dtype;
    return (attni_gradients_engine){
        .problem = problem,
        .plan = plan,
        .set = set,
        .rows = attni_kernels_of(set, dtype),
        .kernels = attni_gradient_kernels_of(set, dtype),
        .products = attni_product_kernels_of(set, dtype),
        .dtype = dtype,
        .element = (int64_t)attn_dtype_size_bytes(dtype),
        .strip_cols = attni_strip_cols(dtype),
        .scratch = scratch,
    };
}

attn_status attni_gradients_begin(attn_context *context, const attni_gradients_problem *problem,
                                  const attni_gradients_plan *plan, char *scratch,
                                  const double *means_before) {
    attni_gradients_engine engine = engine_of(context, problem, plan, scratch);
    engine.means_before = means_before;
    if (problem->is_zero) {
        return ATTN_OK;
    }
    if (plan->num_slots > 1) {
        /* From here on gradients are written, and a failure could not leave them untouched. */
        ATTNI_TRY(attni_start_threads(context));
    }
    return attni_parallel_items(context, plan->num_slots, plan->num_pairs * plan->row_blocks,
                                attni_gradients_means_item, &engine);
}

attn_status attni_gradients_finish(attn_context *context, const attni_gradients_problem *problem,
                                   const attni_gradients_plan *plan, char *scratch) {
    attni_gradients_engine engine = engine_of(context, problem, plan, scratch);
    if (problem->is_zero) {
        attni_gradients_clear(problem);
        return ATTN_OK;
    }
    ATTNI_TRY(run_inputs(context, &engine));
    return run_options(context, &engine);
}

double *attni_gradients_means_of(const attni_gradients_plan *plan, char *scratch) {
    return (double *)(void *)(scratch + plan->means_offset);
}

attn_status attni_gradients_run(attn_context *context, const attni_gradients_problem *problem,
                                const attni_gradients_plan *plan, char *scratch) {
    ATTNI_TRY(attni_gradients_begin(context, problem, plan, scratch, NULL));
    return attni_gradients_finish(context, problem, plan, scratch);
}
