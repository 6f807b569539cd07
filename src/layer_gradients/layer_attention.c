/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_attention.c: the attention's own backward pass, on what forward saved. The extra columns of
 * a layer are keys that every row sees, behind the others: a pass of their own, with the lse and the
 * output of all.
 */
#include "layer_gradients/layer_attention.h"

#include <string.h>

#include "gradients/gradients_check.h"
#include "gradients/gradients_place.h"
#include "gradients/gradients_run.h"
#include "layer_gradients/layer_check.h"
#include "layer_gradients/layer_rows.h"
#include "rotary/rope_run.h"
#include "tensor/element.h"

/* ---- plan ---- */

/* What the attention inside is asked; views are where its tensors point to. */
typedef struct attention_question {
    attni_mha_attention forward;
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
    attn_tensor lse;
    attn_tensor wanted[ATTNI_NUM_PROJECTIONS];
    attni_gradients_request request;
} attention_question;

static void ask(const attni_layer_problem *problem, const attni_layer_plan *plan,
                attention_question *question) {
    const attni_mha_problem *call = &problem->call;
    attni_mha_ask_attention(call, &plan->call, &question->forward);
    const attni_sdpa_request *forward = &question->forward.request;
    question->params = call->attention;
    question->gradients = problem->attention;
    for (int32_t i = 0; i < ATTNI_NUM_PROJECTIONS; ++i) {
        question->wanted[i] = attni_mha_batched(call, &plan->heads[i]);
    }
    if (plan->call.lse.rank > 0) {
        question->lse = plan->call.lse;
        question->lse.data = attni_advance(call->params.saved, (int64_t)plan->call.lse_offset);
        question->params.lse = &question->lse;
    }
    const attn_tensor *wanted = question->wanted;
    const bool *wants = problem->wants_heads;
    question->gradients.output = &wanted[ATTNI_OF_CONTEXT];
    question->gradients.query = wants[ATTNI_OF_QUERY] ? &wanted[ATTNI_OF_QUERY] : NULL;
    question->gradients.key = wants[ATTNI_OF_KEY] ? &wanted[ATTNI_OF_KEY] : NULL;
    question->gradients.value = wants[ATTNI_OF_VALUE] ? &wanted[ATTNI_OF_VALUE] : NULL;
    question->request = (attni_gradients_request){
        .query = forward->query,
        .key = forward->key,
        .value = forward->value,
        .output = forward->output,
        .params = &question->params,
        .gradients = &question->gradients,
        .names = &attni_names_of_layer_gradients,
        .option_prefix = forward->option_prefix,
        .tensor_data = ATTNI_DATA_IGNORED,
        .option_data = call->data_rule,
        .extra_key = forward->extra_key,
        .extra_value = forward->extra_value,
        .dtype = forward->dtype,
    };
}

attn_status attni_layer_attention_plan(const attn_context *context,
                                       const attni_layer_problem *problem, attni_layer_plan *plan,
                                       attni_layout *step) {
    attention_question question;
    attni_gradients_problem *attention = &plan->attention;
    ask(problem, plan, &question);
    question.gradients.accumulate = problem->accumulates ? 1 : 0;
    ATTNI_TRY(attni_gradients_check(&question.request, attention));
    attention->call.masks[ATTNI_KEY_PADDING_MASK] = attni_mha_padding_mask(&problem->call);
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        attention->adds_to[which] = false; /* they are the pass's own */
    }
    if (problem->call.extra_cols > 0) {
        attn_tensor extra[2];
        for (int32_t i = 0; i < 2; ++i) {
            extra[i] = attni_mha_batched(&problem->call, &plan->extra[i]);
        }
        attni_gradients_part_extra(attention, &plan->extra_attention,
                                   problem->wants_extra[0] ? &extra[0] : NULL,
                                   problem->wants_extra[1] ? &extra[1] : NULL);
    }
    ATTNI_TRY(attni_gradients_make_plan(context, attention, &plan->attention_plan, step));
    plan->extra_attention_offset = attni_layout_add(step, 0, 1);
    if (problem->call.extra_cols == 0) {
        return ATTN_OK;
    }
    attni_layout extra_step = {0};
    ATTNI_TRY(
        attni_gradients_make_plan(context, &plan->extra_attention, &plan->extra_plan, &extra_step));
    attni_layout_add(step, (int64_t)extra_step.bytes, 1);
    step->overflow |= extra_step.overflow;
    return ATTN_OK;
}

/* ---- attention ---- */

static void place(const attni_layer_problem *problem, attni_layer_plan *plan) {
    const attni_mha_plan *call = &plan->call;
    attni_gradients_data data = {
        .inputs = {call->query.data, call->key.data, call->value.data},
        .output = call->context.data,
        .lse = call->lse.data,
        .output_gradient = plan->heads[ATTNI_OF_CONTEXT].data,
    };
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        data.gradients[which] = problem->wants_heads[which] ? plan->heads[which].data : NULL;
    }
    attni_gradients_place(&plan->attention, &data);
    data.inputs[ATTNI_OF_KEY] = call->extra_key.data;
    data.inputs[ATTNI_OF_VALUE] = call->extra_value.data;
    data.gradients[ATTNI_OF_KEY] = plan->extra[0].data;
    data.gradients[ATTNI_OF_VALUE] = plan->extra[1].data;
    attni_gradients_place(&plan->extra_attention, &data);
}

/* Where there are no batches that share them, nobody clears them. */
static void clear_extra(const attni_layer_problem *problem, const attni_layer_plan *plan) {
    for (int32_t i = 0; i < 2; ++i) {
        if (problem->wants_extra[i]) {
            const attn_tensor *extra = &plan->extra[i];
            memset(extra->data, 0,
                   (size_t)(extra->shape[1] * extra->shape[2] * extra->shape[3]) *
                       attn_dtype_size_bytes(extra->dtype));
        }
    }
}

/* What softmax takes off is found for the extra columns, where each row sees some, then for all. */
static attn_status run_parts(attn_context *context, attni_layer_plan *plan, char *scratch) {
    const attni_gradients_problem *keys = &plan->attention;
    const attni_gradients_problem *extra = &plan->extra_attention;
    char *extra_scratch = attni_advance(scratch, (int64_t)plan->extra_attention_offset);
    double *extra_means =
        extra->is_zero ? NULL : attni_gradients_means_of(&plan->extra_plan, extra_scratch);
    ATTNI_TRY(attni_gradients_begin(context, extra, &plan->extra_plan, extra_scratch, NULL));
    ATTNI_TRY(attni_gradients_begin(context, keys, &plan->attention_plan, scratch,
                                    keys->call.normalizer == ATTN_NORMALIZER_SOFTMAX ? extra_means
                                                                                     : NULL));
    if (extra_means != NULL && !keys->is_zero) {
        const int64_t count = extra->call.num_batches * extra->call.num_heads * extra->call.tgt_len;
        memcpy(extra_means, attni_gradients_means_of(&plan->attention_plan, scratch),
               (size_t)count * sizeof(double));
    }
    ATTNI_TRY(attni_gradients_finish(context, keys, &plan->attention_plan, scratch));
    return attni_gradients_finish(context, extra, &plan->extra_plan, extra_scratch);
}

attn_status attni_layer_attention_run(attn_context *context, const attni_layer_problem *problem,
                                      attni_layer_plan *plan, char *scratch) {
    place(problem, plan);
    clear_extra(problem, plan);
    return problem->call.extra_cols > 0
               ? run_parts(context, plan, scratch)
               : attni_gradients_run(context, &plan->attention, &plan->attention_plan, scratch);
}

/* ---- positions ---- */

/* Padded rows were cleared before they met queries. */
static void clear_padding(const attni_layer_problem *problem, const attni_layer_plan *plan) {
    const attni_mha_problem *call = &problem->call;
    if (call->key_padding_mask.kind == ATTN_MASK_NONE) {
        return;
    }
    for (int64_t batch = 0; batch < call->batch; ++batch) {
        for (int64_t row = 0; row < call->new_len; ++row) {
            if (attni_mha_is_padding(call, &plan->call, batch, row)) {
                attni_mha_clear_row(&plan->heads[ATTNI_OF_KEY], batch, row);
                attni_mha_clear_row(&plan->heads[ATTNI_OF_VALUE], batch, row);
            }
        }
    }
}

/* The transpose of a rotation turns back. */
static attn_status turn_back(attn_context *context, const attni_rope_problem *turned,
                             const attn_tensor *gradient) {
    attni_rope_problem back = *turned;
    back.sine_factor = -back.sine_factor;
    back.input.data = gradient->data;
    back.output.data = gradient->data;
    return attni_rope_run(context, &back);
}

static attn_status put_sums(attn_context *context, const attni_layer_problem *problem,
                            const attni_norm_problem *norm, double *sums, int32_t slot) {
    const attn_tensor *weight = &problem->slots[slot];
    if (weight->rank == 0) {
        return ATTN_OK;
    }
    const attni_layer_rows rows = attni_layer_rows_of(context, weight, true);
    if (problem->call.layer->score_dtype != ATTN_DTYPE_FLOAT64) {
        float *narrow = (float *)(void *)sums;
        for (int64_t col = 0; col < norm->num_cols; ++col) {
            narrow[col] = (float)sums[col];
        }
    }
    return attni_layer_put_rows(context, &rows, (const char *)sums, problem->accumulates);
}

static attn_status undo_norm(attn_context *context, const attni_layer_problem *problem,
                             const attni_norm_problem *norm, const attn_tensor *raw,
                             const attn_tensor *gradient, int32_t slot, char *sums) {
    attni_norm_problem back = *norm;
    back.input.data = raw->data;
    back.output.data = gradient->data;
    ATTNI_TRY(attni_norm_back(context, &back, (double *)(void *)sums));
    return put_sums(context, problem, norm, (double *)(void *)sums, slot);
}

attn_status attni_layer_positions_run(attn_context *context, const attni_layer_problem *problem,
                                      attni_layer_plan *plan, char *scratch) {
    const attni_mha_plan *call = &plan->call;
    const attn_tensor *queries = &plan->heads[ATTNI_OF_QUERY];
    const attn_tensor *keys = &plan->heads[ATTNI_OF_KEY];
    const bool has_norm = problem->call.layer->qk_norm != ATTN_QK_NORM_NONE;
    const bool has_rope = problem->call.has_rope;
    clear_padding(problem, plan);
    if (problem->wants_heads[ATTNI_OF_QUERY] && has_rope) {
        ATTNI_TRY(turn_back(context, &call->query_rope, queries));
    }
    if (problem->wants_heads[ATTNI_OF_KEY] && has_rope) {
        ATTNI_TRY(turn_back(context, &call->key_rope, keys));
    }
    if (problem->wants_heads[ATTNI_OF_QUERY] && has_norm) {
        ATTNI_TRY(undo_norm(context, problem, &call->query_norm, &call->raw_query, queries,
                            ATTNI_Q_NORM, scratch + plan->norm_sums_offset[0]));
    }
    if (problem->wants_heads[ATTNI_OF_KEY] && has_norm) {
        ATTNI_TRY(undo_norm(context, problem, &call->key_norm, &call->raw_key, keys, ATTNI_K_NORM,
                            scratch + plan->norm_sums_offset[1]));
    }
    return ATTN_OK;
}
