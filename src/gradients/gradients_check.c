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

attn_status attni_gradients_read(const attn_sdpa_gradients *given, attn_sdpa_gradients *gradients) {
    if (given == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "gradients: expected what is wanted, got NULL");
    }
    ATTNI_TRY(attni_struct_read("gradients", given, ATTNI_BYTES_THROUGH(attn_sdpa_gradients, sinks),
                                sizeof *gradients, gradients));
    ATTNI_TRY(attni_check_switch("gradients.", "accumulate", gradients->accumulate));
    return attni_check_reserved("gradients.", gradients->reserved);
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
        return attni_fail(ATTN_ERROR_VALUE,
                          "gradients.lse: expected NULL unless the normalizer is softmax");
    }
    const attni_row_axes output_axes = {
        .heads = true, .cols = call->value_dim, .dtype = call->dtype};
    const attni_row_axes lse_axes = {.heads = true, .cols = -1, .dtype = call->score_dtype};
    gradients->output = (attni_operand){0};
    gradients->lse = (attni_operand){0};
    gradients->weights = (attni_operand){0};
    ATTNI_TRY(attni_check_rows("gradients.output", given->output, request->data, call, output_axes,
                               &gradients->output));
    if (given->lse != NULL) {
        ATTNI_TRY(attni_check_rows("gradients.lse", given->lse, request->data, call, lse_axes,
                                   &gradients->lse));
    }
    if (given->weights != NULL) {
        const attni_row_axes axes = attni_weights_axes(call, given->weights);
        ATTNI_TRY(attni_check_rows("gradients.weights", given->weights, request->data, call, axes,
                                   &gradients->weights));
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
    const char *input_name;
} wanted_tensor;

static attn_status check_wanted(const attni_gradients_request *request,
                                const attni_gradients_problem *problem,
                                const wanted_tensor *wanted) {
    if (wanted->input == NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL without %s", wanted->name,
                          wanted->input_name);
    }
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < wanted->input->rank; ++axis) {
        axes[axis] = (attni_axis){NULL, wanted->input->shape[axis]};
    }
    ATTNI_TRY(attni_check_tensor(wanted->name, wanted->gradient, request->data));
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

static void add_wanted(attni_gradients_problem *problem, const attn_tensor *gradient,
                       const attni_operand *starts) {
    problem->wanted[problem->num_wanted++] =
        (attni_wanted_gradient){attni_canonical(gradient), starts};
}

/* One of query, key and value; rows of no sequence are not written. */
static attn_status check_input(const attni_gradients_request *request, const wanted_tensor *wanted,
                               const attni_operand *starts, attni_gradients_problem *problem,
                               attni_operand *operand) {
    *operand = (attni_operand){0};
    if (wanted->gradient == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(check_wanted(request, problem, wanted));
    if (is_empty(wanted->gradient)) {
        return ATTN_OK;
    }
    *operand = attni_operand_of(wanted->gradient, problem->call.batch_rank + 3);
    add_wanted(problem, wanted->gradient, starts->is_present ? starts : NULL);
    return ATTN_OK;
}

/* Key or value, which may lie where gradients cannot. */
static attn_status check_source(const attni_gradients_request *request, const wanted_tensor *wanted,
                                attni_gradients_problem *problem, attni_operand *operand) {
    const attni_sdpa_problem *call = &problem->call;
    if (wanted->gradient != NULL && call->pages.rows > 0) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "%s: expected NULL beside kv.page_table, since sequences may share pages",
                          wanted->name);
    }
    if (wanted->gradient != NULL && attni_is_quantized(wanted->input->dtype)) {
        return attni_fail(ATTN_ERROR_DTYPE, "%s: expected NULL, since %s is quantised",
                          wanted->name, wanted->input_name);
    }
    return check_input(request, wanted, &call->key_starts, problem, operand);
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
    const wanted_tensor query = {"gradients.query", given->query, request->query, "query"};
    const wanted_tensor key = {"gradients.key", given->key, has_kv ? kv.key : request->key,
                               has_kv ? "kv.key" : "key"};
    const wanted_tensor value = {"gradients.value", given->value,
                                 has_kv ? kv.value : request->value, has_kv ? "kv.value" : "value"};
    ATTNI_TRY(
        check_input(request, &query, &problem->call.query_starts, problem, &gradients->query));
    ATTNI_TRY(check_source(request, &key, problem, &gradients->key));
    return check_source(request, &value, problem, &gradients->value);
}

/* A mask's gradient lies as the mask does: on the same axes. */
static attn_status check_mask(const attni_gradients_request *request, const wanted_tensor *wanted,
                              attni_gradients_problem *problem, int32_t which) {
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
    ATTNI_TRY(check_wanted(request, problem, wanted));
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
    add_wanted(problem, wanted->gradient, NULL);
    return ATTN_OK;
}

/* A number for each head, or one for all. */
static attn_status check_numbers(const attni_gradients_request *request,
                                 const wanted_tensor *wanted, attni_gradients_problem *problem,
                                 attni_operand *operand) {
    *operand = (attni_operand){0};
    if (wanted->gradient == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(check_wanted(request, problem, wanted));
    if (is_empty(wanted->gradient)) {
        return ATTN_OK;
    }
    const int32_t rank = problem->call.batch_rank;
    *operand = attni_operand_of(wanted->gradient, rank + 1);
    add_wanted(problem, wanted->gradient, NULL);
    return ATTN_OK;
}

static attn_status check_options(const attni_gradients_request *request,
                                 attni_gradients_problem *problem) {
    const attn_sdpa_gradients *given = request->gradients;
    const attn_sdpa_params *params = request->params;
    attni_sdpa_problem *gradients = &problem->gradients;
    const wanted_tensor mask = {"gradients.mask", given->mask, params->mask, "mask"};
    const wanted_tensor bias = {"gradients.bias", given->bias, params->bias, "bias"};
    const wanted_tensor table = {"gradients.position_bias", given->position_bias,
                                 params->position_bias, "position_bias"};
    const wanted_tensor slopes = {"gradients.alibi_slopes", given->alibi_slopes,
                                  params->alibi_slopes, "alibi_slopes"};
    const wanted_tensor sinks = {"gradients.sinks", given->sinks, params->sinks, "sinks"};
    ATTNI_TRY(check_mask(request, &mask, problem, ATTNI_MASK));
    ATTNI_TRY(check_mask(request, &bias, problem, ATTNI_BIAS));
    ATTNI_TRY(check_mask(request, &table, problem, ATTNI_POSITION_BIAS));
    gradients->masks[ATTNI_KEY_PADDING_MASK].kind = ATTN_MASK_NONE;
    ATTNI_TRY(check_numbers(request, &slopes, problem, &gradients->alibi_slopes));
    return check_numbers(request, &sinks, problem, &gradients->sinks);
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
        .option_prefix = "",
        .tensor_data = request->data,
        .option_data = request->data,
        .with_columns = request->gradients->weights,
        .reads_results = true,
    };
    ATTNI_TRY(attni_sdpa_check(&forward, &problem->call));
    problem->gradients = problem->call;
    problem->num_wanted = 0;
    problem->accumulates = request->gradients->accumulate != 0;
    ATTNI_TRY(check_given(request, problem));
    ATTNI_TRY(check_inputs(request, problem));
    ATTNI_TRY(check_options(request, problem));
    problem->is_zero = adds_nothing(problem);
    return ATTN_OK;
}
