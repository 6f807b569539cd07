/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_layer_gradients.c: runs the backward part of the cases of multi-head attention. They are
 * held to the cases' tolerances; the rounding bounds of layers' gradients are tests/oracle's.
 */
#include "golden_layer_gradients.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_PARAMETERS = 9, NUM_INPUTS = 3, NAME_BYTES = 64 };

/* The names that cases of full-width heads have for a layer's parameters, stacked ones by their
 * part. Others have the layer's. */
typedef struct stored_parameter {
    const char *stored_name;
    const char *name;
    const char *stacked_name;
    int32_t part;
} stored_parameter;

static const stored_parameter stored_parameters[] = {
    {"w_q", "q_proj_weight", "in_proj_weight", 0}, {"w_k", "k_proj_weight", "in_proj_weight", 1},
    {"w_v", "v_proj_weight", "in_proj_weight", 2}, {"b_q", "q_proj_bias", "in_proj_bias", 0},
    {"b_k", "k_proj_bias", "in_proj_bias", 1},     {"b_v", "v_proj_bias", "in_proj_bias", 2},
    {"w_o", "out_proj.weight", NULL, 0},           {"b_o", "out_proj.bias", NULL, 0},
};

enum { NUM_STORED = sizeof stored_parameters / sizeof stored_parameters[0] };

/* A gradient that the case has. */
typedef struct wanted_gradient {
    golden_expected expected;
    golden_output output;
    bool is_there;
} wanted_gradient;

typedef struct layer_gradients {
    attn_tensor output;
    attn_tensor weights;
    wanted_gradient inputs[NUM_INPUTS];
    wanted_gradient mask;
    attn_tensor parameters[MOST_PARAMETERS];
    const char *names[MOST_PARAMETERS];
    int64_t num_parameters;
} layer_gradients;

void golden_take_saved(golden_case *golden, const golden_setting *setting,
                       const golden_layer_call *call, attn_mha_params *params,
                       golden_report *report) {
    size_t bytes = 0;
    if (attn_mha_saved_bytes(setting->context, call->layer, call->query, call->key, call->value,
                             params, &bytes) != ATTN_OK) {
        golden_fail(report, setting, "attn_mha_saved_bytes: %s", attn_last_error());
    }
    params->saved = golden_take(golden, bytes > 0 ? bytes : 1);
    params->saved_bytes = bytes;
}

/* Where the case has a gradient of that name, a place for the result. */
static bool want(golden_case *golden, const golden_setting *setting, const char *name,
                 wanted_gradient *wanted) {
    wanted->is_there = golden_expected_values(golden, name, &wanted->expected);
    if (!wanted->is_there) {
        return true;
    }
    const bool is_made = golden_output_make(golden, setting, name, wanted->expected.rank,
                                            wanted->expected.shape, &wanted->output);
    wanted->output.bound = INFINITY;
    return is_made;
}

static bool make_parameters(golden_case *golden, const golden_setting *setting,
                            const attn_mha *layer, layer_gradients *gradients) {
    if (attn_mha_parameter_count(layer, &gradients->num_parameters) != ATTN_OK) {
        return false;
    }
    for (int64_t i = 0; i < gradients->num_parameters; ++i) {
        attn_tensor *parameter = &gradients->parameters[i];
        if (attn_mha_parameter_describe(layer, i, &gradients->names[i], parameter) != ATTN_OK) {
            return false;
        }
        parameter->data = golden_take(golden, (size_t)golden_count(parameter) *
                                                  attn_dtype_size_bytes(setting->dtype));
    }
    return true;
}

static bool make_gradients(golden_case *golden, const golden_setting *setting,
                           const golden_layer_call *call, layer_gradients *gradients) {
    static const char *const names[NUM_INPUTS] = {"grad.query", "grad.key", "grad.value"};
    const int32_t dtype = setting->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : 0;
    bool is_made = golden_input(golden, "grad_attn_output", dtype, &gradients->output);
    for (int i = 0; i < NUM_INPUTS; ++i) {
        is_made = is_made && want(golden, setting, names[i], &gradients->inputs[i]);
    }
    return is_made && want(golden, setting, "grad.attn_mask", &gradients->mask) &&
           make_parameters(golden, setting, call->layer, gradients);
}

static const attn_tensor *view_of(const wanted_gradient *wanted) {
    return wanted->is_there ? &wanted->output.view : NULL;
}

static void compare(const golden_setting *setting, const wanted_gradient *wanted,
                    golden_report *report) {
    if (wanted->is_there) {
        golden_output_compare(report, setting, &wanted->output, &wanted->expected);
    }
}

static const attn_tensor *parameter_of(const layer_gradients *gradients, const char *name) {
    for (int64_t i = 0; i < gradients->num_parameters; ++i) {
        if (name != NULL && strcmp(gradients->names[i], name) == 0) {
            return &gradients->parameters[i];
        }
    }
    return NULL;
}

/* One of a case's gradients of parameters, which lies in a result from `part` times its own size on.
 * Counts those that the case has. */
static void compare_parameter(golden_case *golden, const golden_setting *setting,
                              const char *stored_name, const attn_tensor *parameter, int32_t part,
                              int32_t *num_compared, golden_report *report) {
    char name[NAME_BYTES];
    wanted_gradient wanted;
    snprintf(name, sizeof name, "grad.%s", stored_name);
    if (!want(golden, setting, name, &wanted) || !wanted.is_there || parameter == NULL) {
        return;
    }
    const size_t bytes =
        (size_t)golden_count(&wanted.output.view) * attn_dtype_size_bytes(setting->dtype);
    memcpy(wanted.output.view.data, (const char *)parameter->data + (size_t)part * bytes, bytes);
    compare(setting, &wanted, report);
    *num_compared += 1;
}

static void compare_parameters(golden_case *golden, const golden_setting *setting,
                               const layer_gradients *gradients, golden_report *report) {
    int32_t num_compared = 0;
    for (int64_t i = 0; i < gradients->num_parameters; ++i) {
        compare_parameter(golden, setting, gradients->names[i], &gradients->parameters[i], 0,
                          &num_compared, report);
    }
    for (int i = 0; i < NUM_STORED; ++i) {
        const stored_parameter *stored = &stored_parameters[i];
        const attn_tensor *own = parameter_of(gradients, stored->name);
        compare_parameter(golden, setting, stored->stored_name,
                          own != NULL ? own : parameter_of(gradients, stored->stacked_name),
                          own != NULL ? 0 : stored->part, &num_compared, report);
    }
    if (num_compared < gradients->num_parameters) {
        golden_fail(report, setting, "the case has gradients of %d parameters, the layer of %lld",
                    (int)num_compared, (long long)gradients->num_parameters);
    }
}

void golden_run_layer_gradients(golden_case *golden, const golden_setting *setting,
                                const golden_layer_call *call, golden_report *report) {
    layer_gradients wanted;
    if (!make_gradients(golden, setting, call, &wanted)) {
        golden_fail(report, setting, "no place for the gradients could be made");
        return;
    }
    const int32_t dtype = setting->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : 0;
    const bool has_weights = golden_input(golden, "grad_attn_weights", dtype, &wanted.weights);
    const attn_sdpa_gradients attention = {.struct_size = sizeof attention,
                                           .weights = has_weights ? &wanted.weights : NULL,
                                           .mask = view_of(&wanted.mask)};
    const attn_mha_gradients gradients = {
        .struct_size = sizeof gradients,
        .output = &wanted.output,
        .query = view_of(&wanted.inputs[0]),
        .key = view_of(&wanted.inputs[1]),
        .value = view_of(&wanted.inputs[2]),
        .parameters = wanted.parameters,
        .num_parameters = wanted.num_parameters,
        .attention = &attention,
    };
    report->backward_calls += 1;
    const attn_status status =
        attn_mha_backward(setting->context, call->layer, call->query, call->key, call->value,
                          call->params, &gradients, NULL, 0);
    if (status != ATTN_OK) {
        golden_fail(report, setting, "attn_mha_backward: %s (%s)", attn_status_name(status),
                    attn_last_error());
        return;
    }
    for (int i = 0; i < NUM_INPUTS; ++i) {
        compare(setting, &wanted.inputs[i], report);
    }
    compare(setting, &wanted.mask, report);
    compare_parameters(golden, setting, &wanted, report);
}
