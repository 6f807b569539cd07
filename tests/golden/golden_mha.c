/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_mha.c: runs the cases of multi-head attention, PyTorch's layer and the one with heads of
 * full width.
 */
#include <math.h>
#include <string.h>

#include "golden_bound.h"
#include "golden_layer_gradients.h"
#include "golden_run.h"

enum { MAX_PARAMETERS = 9 };

typedef struct layer_parameter {
    const char *name;
    attn_tensor values;
} layer_parameter;

/* A layer as the case describes it. */
typedef struct layer_description {
    attn_mha_config config;
    layer_parameter parameters[MAX_PARAMETERS];
    int32_t parameter_count;
} layer_description;

/* The inputs of one forward call. key and value may be the very views before them. */
typedef struct mha_call {
    attn_tensor views[3];
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    attn_tensor attn_mask;
    attn_tensor key_padding_mask;
    attn_sdpa_params attention;
    attn_mha_params params;
} mha_call;

/* Magnitudes the rounding bounds are made of. */
typedef struct mha_magnitudes {
    double query;
    double key;
    double value;
} mha_magnitudes;

static int32_t dtype_of_inputs(const golden_setting *setting) {
    return setting->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : 0;
}

static bool add_parameter(golden_case *golden, const golden_setting *setting,
                          const char *stored_name, const char *name, layer_description *layer) {
    layer_parameter *parameter = &layer->parameters[layer->parameter_count];
    parameter->name = name;
    if (!golden_input(golden, stored_name, dtype_of_inputs(setting), &parameter->values)) {
        return false;
    }
    layer->parameter_count += 1;
    return true;
}

static const attn_tensor *parameter_of(const layer_description *layer, const char *name) {
    for (int32_t i = 0; i < layer->parameter_count; ++i) {
        if (strcmp(layer->parameters[i].name, name) == 0) {
            return &layer->parameters[i].values;
        }
    }
    return NULL;
}

/* PyTorch's layer: parameters by state_dict name, as many of them as the case has. */
static void describe_torch_layer(golden_case *golden, const golden_setting *setting,
                                 layer_description *layer) {
    static const char *const names[] = {"in_proj_weight", "q_proj_weight",   "k_proj_weight",
                                        "v_proj_weight",  "in_proj_bias",    "bias_k",
                                        "bias_v",         "out_proj.weight", "out_proj.bias"};
    *layer = (layer_description){.config = {.struct_size = sizeof layer->config,
                                            .embed_dim = golden_number(golden, "embed_dim"),
                                            .num_heads = golden_number(golden, "num_heads"),
                                            .kdim = golden_number(golden, "kdim"),
                                            .vdim = golden_number(golden, "vdim"),
                                            .dtype = setting->dtype,
                                            .no_bias = !golden_flag(golden, "bias"),
                                            .add_bias_kv = golden_flag(golden, "add_bias_kv"),
                                            .add_zero_attn = golden_flag(golden, "add_zero_attn"),
                                            .batch_first = golden_flag(golden, "batch_first")}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        add_parameter(golden, setting, names[i], names[i], layer);
    }
}

/* (n, De, D) -> (n * De, D), (n, De) -> (n * De). */
static void join_heads(attn_tensor *values) {
    for (int32_t axis = 1; axis < values->rank; ++axis) {
        values->shape[axis - 1] = values->shape[axis];
        values->strides[axis - 1] = values->strides[axis];
    }
    values->rank -= 1;
}

static void describe_fullwidth_layer(golden_case *golden, const golden_setting *setting,
                                     layer_description *layer) {
    static const struct {
        const char *stored_name;
        const char *name;
        bool per_head;
    } names[] = {{"w_q", "q_proj_weight", true},    {"w_k", "k_proj_weight", true},
                 {"w_v", "v_proj_weight", true},    {"b_q", "q_proj_bias", true},
                 {"b_k", "k_proj_bias", true},      {"b_v", "v_proj_bias", true},
                 {"w_o", "out_proj.weight", false}, {"b_o", "out_proj.bias", false}};
    const int64_t embed_dim = golden_number(golden, "embed_dim");
    *layer = (layer_description){.config = {.struct_size = sizeof layer->config,
                                            .embed_dim = embed_dim,
                                            .num_heads = golden_number(golden, "num_heads"),
                                            .qdim = golden_number(golden, "q_dim"),
                                            .kdim = golden_number(golden, "k_dim"),
                                            .vdim = golden_number(golden, "v_dim"),
                                            .head_dim = embed_dim,
                                            .value_head_dim = embed_dim,
                                            .dtype = setting->dtype,
                                            .no_bias = !golden_flag(golden, "bias"),
                                            .batch_first = 1}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        if (add_parameter(golden, setting, names[i].stored_name, names[i].name, layer) &&
            names[i].per_head) {
            attn_tensor *values = &layer->parameters[layer->parameter_count - 1].values;
            values->shape[1] *= values->shape[0];
            join_heads(values);
        }
    }
}

static int32_t mask_kind(const attn_tensor *mask) {
    return mask->dtype == ATTN_DTYPE_BOOL ? ATTN_MASK_BOOL_EXCLUDE : ATTN_MASK_ADDITIVE;
}

static bool read_call(golden_case *golden, const golden_setting *setting, mha_call *call) {
    static const char *const names[] = {"query", "key", "value"};
    for (int i = 0; i < 3; ++i) {
        if (!golden_input(golden, names[i], dtype_of_inputs(setting), &call->views[i])) {
            return false;
        }
    }
    const char *alias = golden_option(golden, "alias");
    call->query = &call->views[0];
    call->key = strcmp(alias, "qkv") == 0 ? call->query : &call->views[1];
    call->value =
        strcmp(alias, "qkv") == 0 || strcmp(alias, "kv") == 0 ? call->key : &call->views[2];
    call->attention = (attn_sdpa_params){.struct_size = sizeof call->attention,
                                         .is_causal = golden_flag(golden, "is_causal")};
    call->params =
        (attn_mha_params){.struct_size = sizeof call->params, .attention = &call->attention};
    const int32_t mask_dtype = setting->stored_float_masks ? 0 : dtype_of_inputs(setting);
    if (golden_input(golden, "attn_mask", mask_dtype, &call->attn_mask)) {
        call->attention.mask = &call->attn_mask;
        call->attention.mask_kind = mask_kind(&call->attn_mask);
    }
    if (golden_input(golden, "key_padding_mask", mask_dtype, &call->key_padding_mask)) {
        call->params.key_padding_mask = &call->key_padding_mask;
        call->params.key_padding_mask_kind = mask_kind(&call->key_padding_mask);
    }
    return true;
}

/* Largest projected element: rows [first, first + length) of the packed weight and bias, or a
 * weight and bias of their own. */
static double projected(const layer_description *layer, const attn_tensor *input,
                        const char *weight_name, const char *bias_name, int64_t first,
                        int64_t length) {
    const attn_tensor *weight = parameter_of(layer, weight_name);
    const attn_tensor *bias = parameter_of(layer, bias_name);
    const attn_tensor *packed_weight = parameter_of(layer, "in_proj_weight");
    const attn_tensor *packed_bias = parameter_of(layer, "in_proj_bias");
    attn_tensor rows;
    attn_tensor terms;
    if (weight == NULL && packed_weight != NULL &&
        attn_tensor_slice(packed_weight, 0, first, length, 1, &rows) == ATTN_OK) {
        weight = &rows;
    }
    if (bias == NULL && packed_bias != NULL &&
        attn_tensor_slice(packed_bias, 0, first, length, 1, &terms) == ATTN_OK) {
        bias = &terms;
    }
    return weight != NULL ? golden_projected_magnitude(input, weight, bias) : INFINITY;
}

static mha_magnitudes magnitudes_of(const layer_description *layer, const mha_call *call,
                                    int64_t head_rows) {
    mha_magnitudes magnitudes = {
        .query = projected(layer, call->query, "q_proj_weight", "q_proj_bias", 0, head_rows),
        .key = projected(layer, call->key, "k_proj_weight", "k_proj_bias", head_rows, head_rows),
        .value =
            projected(layer, call->value, "v_proj_weight", "v_proj_bias", 2 * head_rows, head_rows),
    };
    if (layer->config.add_bias_kv) {
        magnitudes.key = fmax(magnitudes.key, golden_magnitude(parameter_of(layer, "bias_k")));
        magnitudes.value = fmax(magnitudes.value, golden_magnitude(parameter_of(layer, "bias_v")));
    }
    return magnitudes;
}

static double masks_magnitude(const mha_call *call) {
    double sum = 0;
    sum += call->attention.mask_kind == ATTN_MASK_ADDITIVE ? golden_magnitude(&call->attn_mask) : 0;
    sum += call->params.key_padding_mask_kind == ATTN_MASK_ADDITIVE
               ? golden_magnitude(&call->key_padding_mask)
               : 0;
    return sum;
}

/* Magnitudes do not depend on the setting, so they are measured once. */
static void measure(golden_case *golden, const layer_description *layer, const mha_call *call,
                    int64_t head_dim) {
    const mha_magnitudes magnitudes =
        magnitudes_of(layer, call, layer->config.num_heads * head_dim);
    golden->score_magnitude =
        sqrt((double)head_dim) * magnitudes.query * magnitudes.key + masks_magnitude(call);
    golden->output_magnitude = INFINITY;
    const attn_tensor *out_weight = parameter_of(layer, "out_proj.weight");
    const attn_tensor *out_bias = parameter_of(layer, "out_proj.bias");
    if (out_weight != NULL) {
        double ones[1] = {1};
        const attn_tensor one_row = {
            .data = ones, .dtype = ATTN_DTYPE_FLOAT64, .rank = 1, .shape = {out_weight->shape[1]}};
        const double mixed =
            golden_projected_magnitude(&one_row, out_weight, NULL) * magnitudes.value;
        golden->output_magnitude = mixed + (out_bias != NULL ? golden_magnitude(out_bias) : 0);
    }
}

/* See golden_bound.h. Layers of the cases have value heads as wide as the others. */
static void set_bounds(golden_case *golden, const layer_description *layer, const mha_call *call,
                       golden_output *output, golden_output *weights) {
    const attn_mha_config *config = &layer->config;
    const int64_t head_dim =
        config->head_dim > 0 ? config->head_dim : config->embed_dim / config->num_heads;
    if (golden->score_magnitude < 0) {
        measure(golden, layer, call, head_dim);
    }
    const int64_t features =
        call->query->shape[call->query->rank - 1] + call->key->shape[call->key->rank - 1];
    const bool sequence_second = call->key->rank == 3 && config->batch_first;
    const int64_t keys =
        call->key->shape[sequence_second ? 1 : 0] + config->add_bias_kv + config->add_zero_attn;
    const int64_t weights_terms = features + head_dim + keys + 16;
    const int64_t output_terms =
        weights_terms + call->value->shape[call->value->rank - 1] + config->num_heads * head_dim;
    output->bound = golden_rounding_bound(config->dtype, output_terms, golden->score_magnitude,
                                          golden->output_magnitude);
    weights->bound =
        golden_rounding_bound(config->dtype, weights_terms, golden->score_magnitude, 1);
}

/* A layer with the case's parameters, NULL after a failure that has been reported. */
static attn_mha *make_layer(const layer_description *description, bool bind,
                            const golden_setting *setting, golden_report *report) {
    attn_mha *layer;
    attn_status status = attn_mha_create(setting->context, &description->config, &layer);
    if (status != ATTN_OK) {
        golden_fail(report, setting, "attn_mha_create: %s (%s)", attn_status_name(status),
                    attn_last_error());
        return NULL;
    }
    for (int32_t i = 0; i < description->parameter_count; ++i) {
        const layer_parameter *parameter = &description->parameters[i];
        status =
            bind ? attn_mha_bind_parameter(layer, parameter->name, &parameter->values)
                 : attn_mha_load_parameter(NULL, layer, parameter->name, &parameter->values, NULL);
        if (status != ATTN_OK) {
            golden_fail(report, setting, "%s parameter: %s (%s)", bind ? "bound" : "copied",
                        attn_status_name(status), attn_last_error());
            attn_mha_destroy(layer);
            return NULL;
        }
    }
    return layer;
}

/* Workspace of exactly the size asked for, at an odd address; NULL with 0 bytes after a failure or
 * if none is needed. */
static void *take_workspace(golden_case *golden, const golden_setting *setting,
                            const attn_mha *layer, const mha_call *call, const attn_tensor *output,
                            golden_report *report, size_t *bytes) {
    *bytes = 0;
    if (attn_mha_workspace_bytes(setting->context, layer, call->query, call->key, call->value,
                                 &call->params, output, bytes) != ATTN_OK) {
        golden_fail(report, setting, "attn_mha_workspace_bytes: %s", attn_last_error());
    }
    return *bytes > 0 ? (char *)golden_take(golden, *bytes + 1) + 1 : NULL;
}

static void run_expecting_values(golden_case *golden, const golden_setting *setting,
                                 const layer_description *description, bool bind,
                                 const mha_call *case_call, golden_report *report) {
    golden_expected expected_output;
    golden_expected expected_weights;
    golden_output output;
    golden_output weights;
    const bool need_weights = golden_flag(golden, "need_weights");
    if (!golden_expected_values(golden, "attn_output", &expected_output) ||
        !golden_output_make(golden, setting, "attn_output", expected_output.rank,
                            expected_output.shape, &output) ||
        (need_weights &&
         (!golden_expected_values(golden, "attn_weights", &expected_weights) ||
          !golden_output_make(golden, setting, "attn_weights", expected_weights.rank,
                              expected_weights.shape, &weights)))) {
        golden_fail(report, setting, "the case lacks expected values");
        return;
    }
    mha_call call = *case_call;
    call.attention.weights = need_weights ? &weights.view : NULL;
    call.params.attention = &call.attention;
    set_bounds(golden, description, &call, &output, &weights);
    attn_mha *layer = make_layer(description, bind, setting, report);
    if (layer == NULL) {
        return;
    }
    const golden_layer_call made = {layer, call.query, call.key, call.value, &call.params};
    if (golden_flag(golden, "grads")) {
        golden_take_saved(golden, setting, &made, &call.params, report);
    }
    size_t bytes = 0;
    void *workspace =
        bind ? take_workspace(golden, setting, layer, &call, &output.view, report, &bytes) : NULL;
    report->forward_calls += 1;
    const attn_status status =
        attn_mha_forward(setting->context, layer, call.query, call.key, call.value, &call.params,
                         &output.view, workspace, bytes);
    if (status != ATTN_OK) {
        golden_fail(report, setting, "attn_mha_forward: %s (%s)", attn_status_name(status),
                    attn_last_error());
    } else {
        golden_output_compare(report, setting, &output, &expected_output);
        if (need_weights) {
            golden_output_compare(report, setting, &weights, &expected_weights);
        }
        if (golden_flag(golden, "grads")) {
            golden_run_layer_gradients(golden, setting, &made, report);
        }
    }
    attn_mha_destroy(layer);
}

/* A call to be refused gets an output that would be right if the inputs were: query's shape with
 * embed_dim features. */
static void run_expecting_error(golden_case *golden, const golden_setting *setting,
                                const layer_description *description, bool bind,
                                const mha_call *call, golden_report *report) {
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, call->query->shape, sizeof shape);
    shape[call->query->rank - 1] = description->config.embed_dim;
    golden_output output;
    attn_mha *layer = make_layer(description, bind, setting, report);
    if (layer == NULL ||
        !golden_output_make(golden, setting, "attn_output", call->query->rank, shape, &output)) {
        golden_fail(report, setting, "no layer or output could be made for a call to be refused");
        attn_mha_destroy(layer);
        return;
    }
    report->refused_calls += 1;
    attn_status status = attn_mha_forward(setting->context, layer, call->query, call->key,
                                          call->value, &call->params, &output.view, NULL, 0);
    golden_check_refusal(report, golden, setting, status, "attn_mha_forward");
    golden_output_check_untouched(report, setting, &output);
    size_t bytes;
    status = attn_mha_workspace_bytes(setting->context, layer, call->query, call->key, call->value,
                                      &call->params, &output.view, &bytes);
    golden_check_refusal(report, golden, setting, status, "attn_mha_workspace_bytes");
    attn_mha_destroy(layer);
}

static void run_layer(golden_case *golden, const golden_setting *setting,
                      const layer_description *description, golden_report *report) {
    mha_call call;
    if (!read_call(golden, setting, &call)) {
        golden_fail(report, setting, "query, key or value is missing");
        return;
    }
    for (int bind = 0; bind <= 1; ++bind) {
        if (strcmp(golden_option(golden, "expect"), "error") == 0) {
            run_expecting_error(golden, setting, description, bind, &call, report);
        } else {
            run_expecting_values(golden, setting, description, bind, &call, report);
        }
    }
}

void golden_run_mha(golden_case *golden, const golden_setting *setting, golden_report *report) {
    layer_description description;
    describe_torch_layer(golden, setting, &description);
    run_layer(golden, setting, &description, report);
}

void golden_run_fullwidth(golden_case *golden, const golden_setting *setting,
                          golden_report *report) {
    layer_description description;
    describe_fullwidth_layer(golden, setting, &description);
    run_layer(golden, setting, &description, report);
}
