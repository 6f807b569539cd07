/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_check.c: the forward call is checked as it was; then each gradient against what it is
 * of.
 */
#include "gradients/gradients_check.h"

#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "problem/kv_tensors.h"
#include "problem/sdpa_check.h"
#include "problem/sdpa_options.h"
#include "tensor/element.h"

const attni_gradients_names attni_names_of_gradients = {
    .of_struct = "gradients",
    .prefix = "gradients.",
    .output = "gradients.output",
    .lse = "gradients.lse",
    .weights = "gradients.weights",
    .query = "gradients.query",
    .key = "gradients.key",
    .value = "gradients.value",
    .mask = "gradients.mask",
    .bias = "gradients.bias",
    .position_bias = "gradients.position_bias",
    .alibi_slopes = "gradients.alibi_slopes",
    .sinks = "gradients.sinks",
};

attn_status attni_gradients_read(const attni_gradients_names *names,
                                 const attn_sdpa_gradients *given, attn_sdpa_gradients *gradients) {
    if (given == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected what is wanted, got NULL",
                          names->of_struct);
    }
    ATTNI_TRY(attni_struct_read(names->of_struct, given,
                                ATTNI_BYTES_THROUGH(attn_sdpa_gradients, sinks), sizeof *gradients,
                                gradients));
    ATTNI_TRY(attni_check_switch(names->prefix, "accumulate", gradients->accumulate));
    return attni_check_reserved(names->prefix, gradients->reserved);
}

/* ---- what is given ---- */

static attn_status check_given(const attni_gradients_request *request,
                               attni_gradients_problem *problem) {
    const attni_sdpa_problem *call = &problem->call;
    const attn_sdpa_gradients *given = request->gradients;
    attni_sdpa_problem *gradients = &problem->gradients;
    const bool is_softmax = call->normalizer == ATTN_NORMALIZER_SOFTMAX;
    if (is_softmax && request->params->lse == NULL) {
        return attni_fail(ATTN_ERROR_NULL,
                          "lse: expected what the forward call wrote, which softmax needs, got "
                          "NULL");
    }
    if (!is_softmax && given->lse != NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL unless the normalizer is softmax",
                          request->names->lse);
    }
    const attni_row_axes output_axes = {
        .heads = true, .cols = call->value_dim, .dtype = call->dtype};
    const attni_row_axes lse_axes = {.heads = true, .cols = -1, .dtype = call->score_dtype};
    gradients->output = (attni_operand){0};
    gradients->lse = (attni_operand){0};
    gradients->weights = (attni_operand){0};
    ATTNI_TRY(attni_check_rows(request->names->output, given->output, request->tensor_data, call,
                               output_axes, &gradients->output));
    if (given->lse != NULL) {
        ATTNI_TRY(attni_check_rows(request->names->lse, given->lse, request->option_data, call,
                                   lse_axes, &gradients->lse));
    }
    if (given->weights != NULL) {
        const attni_row_axes axes = attni_weights_axes(call, given->weights);
        ATTNI_TRY(attni_check_rows(request->names->weights, given->weights, request->option_data,
                                   call, axes, &gradients->weights));
        gradients->average_weights = !axes.heads;
    }
    return ATTN_OK;
}

/* ---- what is wanted ---- */

/* A gradient, and what it is of. */
typedef struct wanted_tensor {
    const char *name;
    const attn_tensor *gradient; /* or NULL */
    const attn_tensor *input;    /* or NULL: the call has none */
    const char *input_prefix;
    const char *input_name;
    attni_data_rule data;
    int32_t which; /* as attni_wanted_gradient */
} wanted_tensor;

static attn_status check_wanted(const attni_gradients_problem *problem,
                                const wanted_tensor *wanted) {
    if (wanted->input == NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL without %s%s", wanted->name,
                          wanted->input_prefix, wanted->input_name);
    }
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < wanted->input->rank; ++axis) {
        axes[axis] = (attni_axis){NULL, wanted->input->shape[axis]};
    }
    ATTNI_TRY(attni_check_tensor(wanted->name, wanted->gradient, wanted->data));
    ATTNI_TRY(attni_check_either(wanted->name, wanted->gradient, wanted->input->dtype,
                                 problem->call.score_dtype));
    ATTNI_TRY(attni_check_shape(wanted->name, wanted->gradient, axes, wanted->input->rank));
    return attni_check_writable(wanted->name, wanted->gradient);
}

static bool is_empty(const attn_tensor *tensor) {
    bool has_elements = true;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        has_elements = has_elements && tensor->shape[axis] > 0;
    }
    return !has_elements;
}

static void add_wanted(attni_gradients_problem *problem, const wanted_tensor *wanted,
                       const attni_operand *starts) {
    problem->wanted[problem->num_wanted++] =
        (attni_wanted_gradient){attni_canonical(wanted->gradient), wanted->which, starts};
}

/* One of query, key and value; rows of no sequence are not written. */
static attn_status check_input(const wanted_tensor *wanted, const attni_operand *starts,
                               attni_gradients_problem *problem, attni_operand *operand) {
    *operand = (attni_operand){0};
    if (wanted->gradient == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(check_wanted(problem, wanted));
    if (is_empty(wanted->gradient)) {
        return ATTN_OK;
    }
    *operand = attni_operand_of(wanted->gradient, problem->call.batch_rank + 3);
    add_wanted(problem, wanted, starts->is_present ? starts : NULL);
    return ATTN_OK;
}

/* Key or value, which may lie where gradients cannot. */
static attn_status check_source(const wanted_tensor *wanted, attni_gradients_problem *problem,
                                attni_operand *operand) {
    const attni_sdpa_problem *call = &problem->call;
    if (wanted->gradient != NULL && call->pages.rows > 0) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "%s: expected NULL beside kv.page_table, since sequences may share pages",
                          wanted->name);
    }
    if (wanted->gradient != NULL && attni_is_quantized(wanted->input->dtype)) {
        return attni_fail(ATTN_ERROR_DTYPE, "%s: expected NULL, since %s%s is quantised",
                          wanted->name, wanted->input_prefix, wanted->input_name);
    }
    return check_input(wanted, &call->key_starts, problem, operand);
}

static attn_status check_inputs(const attni_gradients_request *request,
                                attni_gradients_problem *problem) {
    const attn_sdpa_gradients *given = request->gradients;
    attni_sdpa_problem *gradients = &problem->gradients;
    attn_kv kv = {0};
    if (request->params->kv != NULL) { /* it was read before, and so can be again */
        (void)attni_kv_read(&attni_names_of_kv, request->params->kv, &kv);
    }
    const bool has_kv = request->params->kv != NULL;
    const char *prefix = has_kv ? "kv." : "";
    const attn_tensor *keys = has_kv ? kv.key : request->key;
    const attn_tensor *values = has_kv ? kv.value : request->value;
    const attni_gradients_names *names = request->names;
    const attni_data_rule data = request->tensor_data;
    const wanted_tensor query = {names->query, given->query, request->query, "",
                                 "query",      data,         ATTNI_OF_QUERY};
    const wanted_tensor key = {names->key, given->key, keys, prefix, "key", data, ATTNI_OF_KEY};
    const wanted_tensor value = {names->value, given->value, values,        prefix,
                                 "value",      data,         ATTNI_OF_VALUE};
    ATTNI_TRY(check_input(&query, &problem->call.query_starts, problem, &gradients->query));
    ATTNI_TRY(check_source(&key, problem, &gradients->key));
    return check_source(&value, problem, &gradients->value);
}

/* A mask's gradient lies as the mask does: on the same axes. */
static attn_status check_mask(const wanted_tensor *wanted, attni_gradients_problem *problem,
                              int32_t which) {
    attni_mask *mask = &problem->gradients.masks[which];
    const int32_t kind = mask->kind;
    mask->kind = ATTN_MASK_NONE;
    if (wanted->gradient == NULL) {
        return ATTN_OK;
    }
    if (wanted->input != NULL && kind != ATTN_MASK_ADDITIVE) {
        return attni_fail(ATTN_ERROR_DTYPE, "%s: expected NULL, since a bool mask has no gradient",
                          wanted->name);
    }
    ATTNI_TRY(check_wanted(problem, wanted));
    if (is_empty(wanted->gradient)) {
        return ATTN_OK;
    }
    const int32_t rank = problem->call.batch_rank;
    const attni_operand operand = attni_operand_of(wanted->gradient, rank + 3);
    for (int32_t axis = 0; axis < rank + 3; ++axis) {
        mask->strides[axis] = operand.strides[axis];
    }
    if (mask->columns == ATTNI_COLUMNS_ARE_DISTANCES) {
        mask->strides[rank] = operand.strides[rank + 1];
        mask->strides[rank + 1] = 0;
    }
    mask->kind = ATTN_MASK_ADDITIVE;
    mask->data = operand.data;
    mask->dtype = operand.dtype;
    add_wanted(problem, wanted, NULL);
    return ATTN_OK;
}

/* A number for each head, or one for all. */
static attn_status check_numbers(const wanted_tensor *wanted, attni_gradients_problem *problem,
                                 attni_operand *operand) {
    *operand = (attni_operand){0};
    if (wanted->gradient == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(check_wanted(problem, wanted));
    if (is_empty(wanted->gradient)) {
        return ATTN_OK;
    }
    const int32_t rank = problem->call.batch_rank;
    *operand = attni_operand_of(wanted->gradient, rank + 1);
    add_wanted(problem, wanted, NULL);
    return ATTN_OK;
}

static attn_status check_options(const attni_gradients_request *request,
                                 attni_gradients_problem *problem) {
    const attn_sdpa_gradients *given = request->gradients;
    const attn_sdpa_params *params = request->params;
    attni_sdpa_problem *gradients = &problem->gradients;
    const attni_gradients_names *names = request->names;
    const char *prefix = request->option_prefix;
    const attni_data_rule data = request->option_data;
    const wanted_tensor mask = {names->mask, given->mask, params->mask,    prefix,
                                "mask",      data,        ATTNI_NUM_SUMMED};
    const wanted_tensor bias = {names->bias, given->bias, params->bias,    prefix,
                                "bias",      data,        ATTNI_NUM_SUMMED};
    const wanted_tensor table = {names->position_bias,  given->position_bias,
                                 params->position_bias, prefix,
                                 "position_bias",       data,
                                 ATTNI_NUM_SUMMED};
    const wanted_tensor slopes = {names->alibi_slopes,  given->alibi_slopes,
                                  params->alibi_slopes, prefix,
                                  "alibi_slopes",       data,
                                  ATTNI_NUM_SUMMED};
    const wanted_tensor sinks = {names->sinks, given->sinks, params->sinks,   prefix,
                                 "sinks",      data,         ATTNI_NUM_SUMMED};
    ATTNI_TRY(check_mask(&mask, problem, ATTNI_MASK));
    ATTNI_TRY(check_mask(&bias, problem, ATTNI_BIAS));
    ATTNI_TRY(check_mask(&table, problem, ATTNI_POSITION_BIAS));
    gradients->masks[ATTNI_KEY_PADDING_MASK].kind = ATTN_MASK_NONE;
    ATTNI_TRY(check_numbers(&slopes, problem, &gradients->alibi_slopes));
    return check_numbers(&sinks, problem, &gradients->sinks);
}

/* Where there is no row, no key or nothing that a row's gradient could be of, no sum has a term. A
 * sink has a weight without any key. */
static bool adds_nothing(const attni_gradients_problem *problem) {
    const attni_sdpa_problem *call = &problem->call;
    const attni_sdpa_problem *gradients = &problem->gradients;
    const bool has_rows = call->num_batches > 0 && call->num_heads > 0 && call->tgt_len > 0;
    const bool has_keys = call->src_len > 0 || gradients->sinks.is_present;
    const bool has_gradient =
        call->value_dim > 0 || gradients->lse.is_present || gradients->weights.is_present;
    return problem->num_wanted == 0 || !(has_rows && has_keys && has_gradient);
}

attn_status attni_gradients_check(const attni_gradients_request *request,
                                  attni_gradients_problem *problem) {
    const attni_sdpa_request forward = {
        .kv_names = &attni_names_of_kv,
        .query = request->query,
        .key = request->key,
        .value = request->value,
        .output = request->output,
        .params = request->params,
        .option_prefix = request->option_prefix,
        .tensor_data = request->tensor_data,
        .option_data = request->option_data,
        .extra_key = request->extra_key,
        .extra_value = request->extra_value,
        .dtype = request->dtype,
        .with_columns = request->gradients->weights,
        .reads_results = true,
    };
    ATTNI_TRY(attni_sdpa_check(&forward, &problem->call));
    problem->gradients = problem->call;
    problem->num_wanted = 0;
    problem->accumulates = request->gradients->accumulate != 0;
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        problem->adds_to[which] = problem->accumulates;
    }
    ATTNI_TRY(check_given(request, problem));
    ATTNI_TRY(check_inputs(request, problem));
    ATTNI_TRY(check_options(request, problem));
    problem->is_zero = adds_nothing(problem);
    return ATTN_OK;
}
