/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_check.c: the call is checked as forward's was; then each gradient against what it is of.
 */
#include "layer_gradients/layer_check.h"

#include <stdio.h>

#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "tensor/element.h"

const attni_gradients_names attni_names_of_layer_gradients = {
    .of_struct = "gradients.attention",
    .prefix = "gradients.attention.",
    .output = "gradients.attention.output",
    .lse = "gradients.attention.lse",
    .weights = "gradients.attention.weights",
    .query = "gradients.attention.query",
    .key = "gradients.attention.key",
    .value = "gradients.attention.value",
    .mask = "gradients.attention.mask",
    .bias = "gradients.attention.bias",
    .position_bias = "gradients.attention.position_bias",
    .alibi_slopes = "gradients.attention.alibi_slopes",
    .sinks = "gradients.attention.sinks",
};

/* ---- structs ---- */

/* What the layer's own gradients say. */
static attn_status check_attention(const attn_sdpa_gradients *attention) {
    const attni_gradients_names *names = &attni_names_of_layer_gradients;
    const attni_argument own[] = {{names->output, attention->output},
                                  {names->query, attention->query},
                                  {names->key, attention->key},
                                  {names->value, attention->value}};
    for (int32_t i = 0; i < 4; ++i) {
        if (own[i].tensor != NULL) {
            return attni_fail(ATTN_ERROR_VALUE,
                              "%s: expected NULL, since the layer has it and its own gradient",
                              own[i].name);
        }
    }
    return attention->accumulate == 0
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_VALUE, "gradients.attention.accumulate: expected 0, since "
                                              "gradients.accumulate counts");
}

static attn_status read_structs(const attn_mha_gradients *given, attni_layer_problem *problem) {
    attn_mha_gradients *gradients = &problem->given;
    if (given == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "gradients: expected what is wanted, got NULL");
    }
    ATTNI_TRY(attni_struct_read("gradients", given,
                                ATTNI_BYTES_THROUGH(attn_mha_gradients, attention),
                                sizeof *gradients, gradients));
    ATTNI_TRY(attni_check_switch("gradients.", "accumulate", gradients->accumulate));
    ATTNI_TRY(attni_check_reserved("gradients.", gradients->reserved));
    problem->accumulates = gradients->accumulate != 0;
    problem->attention = (attn_sdpa_gradients){0};
    if (gradients->attention == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_gradients_read(&attni_names_of_layer_gradients, gradients->attention,
                                   &problem->attention));
    return check_attention(&problem->attention);
}

/* ---- what is wanted ---- */

/* (N, rows, features) in the order of the caller's axes. */
static attn_tensor input_view(const attni_mha_problem *call, const attn_tensor *given) {
    const attn_tensor canonical = attni_canonical(given);
    attn_tensor view = {.data = given->data, .dtype = given->dtype, .rank = 3};
    const int32_t batch_axis = call->is_batch_major ? 0 : 1;
    const int32_t row_axis = call->is_batched ? 1 - batch_axis : 0;
    view.shape[0] = call->is_batched ? given->shape[batch_axis] : 1;
    view.strides[0] = call->is_batched ? canonical.strides[batch_axis] : 0;
    view.shape[1] = given->shape[row_axis];
    view.strides[1] = canonical.strides[row_axis];
    view.shape[2] = given->shape[given->rank - 1];
    view.strides[2] = canonical.strides[given->rank - 1];
    return view;
}

/* A gradient of the shape of `like`. */
static attn_status check_wanted(const char *name, const attn_tensor *gradient,
                                const attn_tensor *like, attni_data_rule data_rule) {
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < like->rank; ++axis) {
        axes[axis] = (attni_axis){NULL, like->shape[axis]};
    }
    ATTNI_TRY(attni_check_tensor(name, gradient, data_rule));
    ATTNI_TRY(attni_check_either(name, gradient, like->dtype, attni_score_dtype(like->dtype)));
    ATTNI_TRY(attni_check_shape(name, gradient, axes, like->rank));
    return attni_check_writable(name, gradient);
}

static attn_status check_inputs(const attni_mha_request *request, attni_layer_problem *problem) {
    static const char *const names[] = {"gradients.query", "gradients.key", "gradients.value"};
    const attn_tensor *const wanted[] = {problem->given.query, problem->given.key,
                                         problem->given.value};
    const attn_tensor *const inputs[] = {request->query, request->key, request->value};
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        if (wanted[which] != NULL) {
            ATTNI_TRY(check_wanted(names[which], wanted[which], inputs[which], request->data_rule));
            problem->inputs[which] = input_view(&problem->call, wanted[which]);
        }
    }
    return ATTN_OK;
}

enum { NAME_BYTES = 64 };

static const char *parameter_name(const attn_mha *layer, int64_t index, char name[NAME_BYTES],
                                  attn_tensor *shape) {
    (void)snprintf(name, NAME_BYTES, "gradients.%s",
                   attni_mha_listed_parameter(layer, index, shape));
    return name;
}

/* Data of NULL, or no type at all where data is not looked at, says that none is wanted. */
static bool is_wanted(const attn_tensor *parameter, attni_data_rule data_rule) {
    return data_rule == ATTNI_DATA_REQUIRED ? parameter->data != NULL
                                            : parameter->dtype != ATTN_DTYPE_INVALID;
}

static attn_status check_parameters(const attni_mha_request *request,
                                    attni_layer_problem *problem) {
    const attn_mha_gradients *given = &problem->given;
    const int64_t count = attni_mha_count_listed(request->layer);
    const int64_t expected = given->parameters != NULL ? count : 0;
    if (given->parameters == NULL && given->num_parameters == count) {
        return attni_fail(ATTN_ERROR_NULL,
                          "gradients.parameters: expected num_parameters=%lld tensors, got NULL",
                          (long long)count);
    }
    if (given->num_parameters != expected) {
        return attni_fail(ATTN_ERROR_VALUE, "gradients.num_parameters: expected %lld, got %lld",
                          (long long)expected, (long long)given->num_parameters);
    }
    for (int64_t index = 0; index < expected; ++index) {
        const attn_tensor *parameter = &given->parameters[index];
        attn_tensor shape = {0};
        char text[NAME_BYTES];
        if (is_wanted(parameter, request->data_rule)) {
            const char *name = parameter_name(request->layer, index, text, &shape);
            ATTNI_TRY(check_wanted(name, parameter, &shape, request->data_rule));
            attni_mha_divide(request->layer, index, parameter, problem->slots);
        }
    }
    return ATTN_OK;
}

/* A mask's gradient is in its shape, which the layer knows alone. */
static attn_status check_mask(attni_data_rule data_rule, attni_layer_problem *problem) {
    const attn_tensor *mask = problem->call.given_mask;
    const char *name = attni_names_of_layer_gradients.mask;
    const attn_tensor *gradient = problem->attention.mask;
    if (gradient == NULL || mask == NULL) {
        return ATTN_OK; /* or refused by the attention's own check */
    }
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < mask->rank; ++axis) {
        axes[axis] = (attni_axis){NULL, mask->shape[axis]};
    }
    ATTNI_TRY(attni_check_tensor(name, gradient, data_rule));
    ATTNI_TRY(attni_mha_view_mask(&problem->call, name, gradient, &problem->mask));
    ATTNI_TRY(attni_check_shape(name, gradient, axes, mask->rank));
    problem->attention.mask = &problem->mask;
    return ATTN_OK;
}

static bool has(const attni_layer_problem *problem, int32_t slot) {
    return problem->slots[slot].rank > 0;
}

/* What must be known for what is wanted. */
static void find_needs(attni_layer_problem *problem) {
    const attn_sdpa_gradients *attention = &problem->attention;
    problem->wants_heads[ATTNI_OF_QUERY] =
        has(problem, ATTNI_Q_WEIGHT) || has(problem, ATTNI_Q_BIAS) || has(problem, ATTNI_Q_NORM);
    problem->wants_heads[ATTNI_OF_KEY] =
        has(problem, ATTNI_K_WEIGHT) || has(problem, ATTNI_K_BIAS) || has(problem, ATTNI_K_NORM);
    problem->wants_heads[ATTNI_OF_VALUE] =
        has(problem, ATTNI_V_WEIGHT) || has(problem, ATTNI_V_BIAS);
    problem->wants_extra[0] = has(problem, ATTNI_BIAS_K);
    problem->wants_extra[1] = has(problem, ATTNI_BIAS_V);
    problem->wants_attention = problem->wants_extra[0] || problem->wants_extra[1] ||
                               attention->mask != NULL || attention->bias != NULL ||
                               attention->position_bias != NULL ||
                               attention->alibi_slopes != NULL || attention->sinks != NULL;
    for (int32_t which = 0; which < ATTNI_NUM_SUMMED; ++which) {
        problem->wants_heads[which] |= problem->inputs[which].rank > 0;
        problem->wants_attention |= problem->wants_heads[which];
    }
}

/* What backward ignores of the options. */
static void forget_results(attn_sdpa_params *attention) {
    attention->lse = NULL;
    attention->weights = NULL;
    attention->scores = NULL;
    attention->report = NULL;
}

attn_status attni_layer_check(const attni_mha_request *request, const attn_mha_gradients *given,
                              attni_layer_problem *problem) {
    *problem = (attni_layer_problem){0};
    ATTNI_TRY(read_structs(given, problem));
    attni_mha_request call = *request;
    call.output = problem->given.output;
    call.output_name = "gradients.output";
    call.reads_output = true;
    call.saves = true;
    ATTNI_TRY(attni_mha_check(&call, &problem->call));
    if (request->data_rule == ATTNI_DATA_REQUIRED && problem->call.params.saved == NULL) {
        return attni_fail(
            ATTN_ERROR_NULL,
            "saved: expected what attn_mha_forward left in attn_mha_saved_bytes bytes "
            "that params.saved pointed to, got NULL");
    }
    forget_results(&problem->call.attention);
    ATTNI_TRY(check_inputs(request, problem));
    ATTNI_TRY(check_parameters(request, problem));
    ATTNI_TRY(check_mask(request->data_rule, problem));
    find_needs(problem);
    return ATTN_OK;
}

/* ---- memory ---- */

static void list_parameters(const attni_layer_problem *problem, attni_mha_tensors *list,
                            char names[ATTNI_NUM_SLOTS][NAME_BYTES]) {
    const attn_mha_gradients *given = &problem->given;
    for (int64_t index = 0; index < given->num_parameters; ++index) {
        if (given->parameters[index].data != NULL) {
            attn_tensor shape;
            const char *name = parameter_name(problem->call.layer, index, names[index], &shape);
            attni_mha_list_output(list, name, &given->parameters[index]);
        }
    }
}

attn_status attni_layer_check_memory(const attni_layer_problem *problem,
                                     const attni_layer_plan *plan, const void *workspace) {
    const attni_gradients_names *names = &attni_names_of_layer_gradients;
    const attn_sdpa_gradients *attention = &problem->attention;
    char parameter_names[ATTNI_NUM_SLOTS][NAME_BYTES];
    attni_mha_tensors list;
    list.num_outputs = 0;
    list.num_inputs = 0;
    ATTNI_TRY(attni_mha_check_saved(&problem->call, &plan->call));
    attni_mha_list_output(&list, "gradients.query", problem->given.query);
    attni_mha_list_output(&list, "gradients.key", problem->given.key);
    attni_mha_list_output(&list, "gradients.value", problem->given.value);
    list_parameters(problem, &list, parameter_names);
    attni_mha_list_output(&list, names->mask, attention->mask);
    attni_mha_list_output(&list, names->bias, attention->bias);
    attni_mha_list_output(&list, names->position_bias, attention->position_bias);
    attni_mha_list_output(&list, names->alibi_slopes, attention->alibi_slopes);
    attni_mha_list_output(&list, names->sinks, attention->sinks);
    attni_mha_list_input(&list, "gradients.output", &problem->call.output);
    attni_mha_list_input(&list, names->lse, attention->lse);
    attni_mha_list_input(&list, names->weights, attention->weights);
    attni_mha_list_input(&list, "saved",
                         attni_mha_saved_tensor(&problem->call, &plan->call, &list));
    attni_mha_list_read(&problem->call, &list);
    return attni_mha_check_apart(&list, workspace, attni_workspace_reach(&plan->layout));
}
