/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_place.c: addresses, and which keys are whose.
 */
#include "gradients/gradients_place.h"

#include "problem/sdpa_check.h"
#include "tensor/element.h"

void attni_gradients_place(attni_gradients_problem *problem, const attni_gradients_data *data) {
    attni_sdpa_problem *call = &problem->call;
    attni_sdpa_problem *gradients = &problem->gradients;
    attni_operand *const inputs[] = {&call->query, &call->key, &call->value};
    attni_operand *const wanted[] = {&gradients->query, &gradients->key, &gradients->value};
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        inputs[which]->data = data->inputs[which];
        wanted[which]->data = data->gradients[which];
    }
    call->output.data = data->output;
    call->lse.data = data->lse;
    gradients->output.data = data->output_gradient;
    for (int32_t i = 0; i < problem->num_wanted; ++i) {
        const int32_t which = problem->wanted[i].which;
        if (which < ATTNI_NUM_SUMMED) {
            problem->wanted[i].tensor.data = data->gradients[which];
        }
    }
}

/* Of options that say which keys a row sees, and where they stand, nothing is left. */
static void show_all(attni_sdpa_problem *call) {
    call->is_causal = false;
    call->aligns_end = false;
    call->window_left = -1;
    call->window_right = -1;
    call->query_offset = (attni_operand){0};
    call->key_lengths = (attni_operand){0};
    call->mask_start = (attni_operand){0};
    call->alibi_slopes = (attni_operand){0};
    call->blocks = (attni_block_mask){0};
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        call->masks[i] = (attni_mask){.kind = ATTN_MASK_NONE};
    }
}

/* The extra columns as keys, which stand behind the others. */
static void take_extra(attni_sdpa_problem *call) {
    call->dropout.column += call->src_len;
    show_all(call);
    call->key = call->extra_key;
    call->value = call->extra_value;
    call->src_len = call->extra_cols;
    call->key_rows = call->extra_cols;
    call->extra_cols = 0;
}

static void want(attni_gradients_problem *problem, const attn_tensor *gradient, int32_t which,
                 attni_operand *operand) {
    *operand = (attni_operand){0};
    if (gradient == NULL) {
        return;
    }
    *operand = attni_operand_of(gradient, problem->call.batch_rank + 3);
    problem->wanted[problem->num_wanted++] =
        (attni_wanted_gradient){attni_canonical(gradient), which, NULL};
}

/* Of what was wanted, the gradient of query alone. */
static void keep_query(attni_gradients_problem *problem) {
    const int32_t count = problem->num_wanted;
    problem->num_wanted = 0;
    for (int32_t i = 0; i < count; ++i) {
        if (problem->wanted[i].which == ATTNI_OF_QUERY) {
            problem->wanted[problem->num_wanted++] = problem->wanted[i];
        }
    }
}

void attni_gradients_part_extra(attni_gradients_problem *problem, attni_gradients_problem *extra,
                                const attn_tensor *extra_key_gradient,
                                const attn_tensor *extra_value_gradient) {
    const attni_sdpa_problem *call = &problem->call;
    *extra = *problem;
    attni_sdpa_problem *gradients = &extra->gradients;
    keep_query(extra);
    take_extra(&extra->call);
    take_extra(gradients);
    gradients->sinks = (attni_operand){0};
    if (gradients->weights.is_present) {
        const int64_t offset = call->src_len * gradients->weights.strides[call->batch_rank + 2];
        gradients->weights.data =
            attni_advance(gradients->weights.data, offset * gradients->weights.element_bytes);
    }
    want(extra, extra_key_gradient, ATTNI_OF_KEY, &gradients->key);
    want(extra, extra_value_gradient, ATTNI_OF_VALUE, &gradients->value);
    extra->adds_to[ATTNI_OF_QUERY] = true;
    extra->adds_to[ATTNI_OF_KEY] = false;
    extra->adds_to[ATTNI_OF_VALUE] = false;
    const bool has_rows = call->num_batches > 0 && call->tgt_len > 0;
    const bool needs_means = gradients->weights.is_present || problem->gradients.sinks.is_present;
    extra->is_zero = !has_rows || (extra->num_wanted == 0 && !needs_means);
    problem->call.extra_cols = 0;
    problem->gradients.extra_cols = 0;
}
