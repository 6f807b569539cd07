/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_outputs.c: what a forward call's outputs look like, for whoever allocates them.
 */
#include <attention/multihead_backward.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "multihead/mha_layer.h"
#include "sdpa/sdpa_outputs.h"

/* The query's axes with embed_dim features. */
static attn_status describe_output(const attn_mha *layer, const attn_tensor *query,
                                   attn_tensor *output) {
    if (layer == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    }
    ATTNI_TRY(attni_check_tensor("query", query, ATTNI_DATA_IGNORED));
    ATTNI_TRY(attni_check_rank("query", query, 2, 3));
    *output = (attn_tensor){.dtype = layer->dtype, .rank = query->rank};
    for (int32_t axis = 0; axis < query->rank; ++axis) {
        output->shape[axis] = query->shape[axis];
    }
    output->shape[query->rank - 1] = layer->embed_dim;
    attni_make_contiguous(output);
    return attni_check_extent("output", output);
}

/* A call whose output is the one that belongs to it. */
static attn_status check(const attn_mha *layer, const attn_tensor *query, const attn_tensor *key,
                         const attn_tensor *value, const attn_mha_params *params, bool saves,
                         attn_tensor *output, attni_mha_problem *problem) {
    ATTNI_TRY(describe_output(layer, query, output));
    const attni_mha_request request = {.layer = layer,
                                       .query = query,
                                       .key = key,
                                       .value = value,
                                       .params = params,
                                       .output = output,
                                       .output_name = "output",
                                       .saves = saves,
                                       .data_rule = ATTNI_DATA_IGNORED};
    return attni_mha_check(&request, problem);
}

attn_status attn_mha_describe_outputs(const attn_mha *layer, const attn_tensor *query,
                                      const attn_tensor *key, const attn_tensor *value,
                                      const attn_mha_params *params, attn_mha_outputs *outputs) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_struct_check_output("outputs", outputs,
                                        ATTNI_BYTES_THROUGH(attn_mha_outputs, averaged_weights)));
    attn_mha_outputs known = {.struct_size = sizeof known};
    attni_mha_problem problem;
    ATTNI_TRY(check(layer, query, key, value, params, false, &known.output, &problem));
    attni_mha_plan plan = {0};
    ATTNI_TRY(attni_mha_plan_heads(&problem, &plan));
    ATTNI_TRY(attni_mha_plan_positions(&problem, &plan));
    ATTNI_TRY(attni_mha_plan_append(&problem, &plan));
    attni_mha_attention asked;
    attni_mha_ask_attention(&problem, &plan, &asked);
    attn_sdpa_outputs inside;
    ATTNI_TRY(attni_sdpa_describe_outputs(&asked.request, &inside));
    known.lse = inside.lse;
    known.weights = inside.weights;
    known.averaged_weights = inside.averaged_weights;
    known.scores = inside.scores;
    attni_struct_write(outputs, &known, sizeof known);
    return ATTN_OK;
}

attn_status attn_mha_saved_bytes(attn_context *context, const attn_mha *layer,
                                 const attn_tensor *query, const attn_tensor *key,
                                 const attn_tensor *value, const attn_mha_params *params,
                                 size_t *bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    if (bytes == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    ATTNI_TRY(attni_context_resolve(context, &context));
    attn_tensor output;
    attni_mha_problem problem;
    attni_mha_plan plan;
    ATTNI_TRY(check(layer, query, key, value, params, true, &output, &problem));
    ATTNI_TRY(attni_mha_make_plan(context, &problem, &plan));
    *bytes = plan.saved.bytes;
    return ATTN_OK;
}
