/* SPDX-License-Identifier: BSD-3-Clause
 *
 * flat.c: puts layouts, data and options together and calls the library.
 */
#include "flat.h"

#include <stdlib.h>

#include "_cgo_export.h"

/* The arguments that FLAT_DATA declares, in its order. */
#define FLAT_ARGUMENTS                                                                          \
    query, key, value, output, mask, bias, key_padding_mask, query_offset, key_lengths,         \
        alibi_slopes, sinks, lse, weights, scores, query_starts, mask_start, position_bias,     \
        block_mask, kv_key, kv_value, kv_page_table, kv_page_starts, kv_starts, kv_lengths,     \
        kv_key_scale, kv_value_scale, kv_key_zero, kv_value_zero, new_starts, new_positions,    \
        rope_frequencies, rope_cos, rope_sin, rope_positions, rope_lengths, gradient_output,    \
        gradient_lse, gradient_weights, gradient_query, gradient_key, gradient_value,           \
        gradient_mask, gradient_bias, gradient_position_bias, gradient_alibi_slopes,            \
        gradient_sinks, saved, parameter_0, parameter_1, parameter_2, parameter_3, parameter_4, \
        parameter_5, parameter_6, parameter_7, parameter_8, parameter_9

/* The arguments of a call as the library has them. */
typedef struct arguments {
    attn_tensor tensors[FLAT_TENSORS];
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *output;
    attn_sdpa_params attention;
    attn_mha_params forward;
    attn_rope_params rope;
    attn_kv places;
    attn_kv_append_params append;
    attn_sdpa_gradients gradients;
    attn_mha_gradients layer_gradients;
    const attn_kv *kv;
} arguments;

static const attn_tensor *present(const attn_tensor *tensor) {
    return tensor->dtype == ATTN_DTYPE_INVALID ? NULL : tensor;
}

static void assemble_places(arguments *made, const flat_call *call) {
    const attn_tensor *const tensors = made->tensors;
    made->places = (attn_kv){
        .struct_size = sizeof made->places,
        .key = present(&tensors[FLAT_KV_KEY]),
        .value = present(&tensors[FLAT_KV_VALUE]),
        .page_table = present(&tensors[FLAT_KV_PAGE_TABLE]),
        .page_starts = present(&tensors[FLAT_KV_PAGE_STARTS]),
        .starts = present(&tensors[FLAT_KV_STARTS]),
        .lengths = present(&tensors[FLAT_KV_LENGTHS]),
        .key_scale = present(&tensors[FLAT_KV_KEY_SCALE]),
        .value_scale = present(&tensors[FLAT_KV_VALUE_SCALE]),
        .key_zero = present(&tensors[FLAT_KV_KEY_ZERO]),
        .value_zero = present(&tensors[FLAT_KV_VALUE_ZERO]),
    };
    made->kv = call->has_kv ? &made->places : NULL;
    made->append = (attn_kv_append_params){
        .struct_size = sizeof made->append,
        .starts = present(&tensors[FLAT_NEW_STARTS]),
        .positions = present(&tensors[FLAT_NEW_POSITIONS]),
    };
}

static void assemble_gradients(arguments *made, const flat_call *call) {
    const attn_tensor *const tensors = made->tensors;
    made->gradients = (attn_sdpa_gradients){
        .struct_size = sizeof made->gradients,
        .accumulate = call->accumulates,
        .output = present(&tensors[FLAT_GRADIENT_OUTPUT]),
        .lse = present(&tensors[FLAT_GRADIENT_LSE]),
        .weights = present(&tensors[FLAT_GRADIENT_WEIGHTS]),
        .query = present(&tensors[FLAT_GRADIENT_QUERY]),
        .key = present(&tensors[FLAT_GRADIENT_KEY]),
        .value = present(&tensors[FLAT_GRADIENT_VALUE]),
        .mask = present(&tensors[FLAT_GRADIENT_MASK]),
        .bias = present(&tensors[FLAT_GRADIENT_BIAS]),
        .position_bias = present(&tensors[FLAT_GRADIENT_POSITION_BIAS]),
        .alibi_slopes = present(&tensors[FLAT_GRADIENT_ALIBI_SLOPES]),
        .sinks = present(&tensors[FLAT_GRADIENT_SINKS]),
    };
}

/* Of a layer: those of its own apart from those of the attention inside. */
static void assemble_layer_gradients(arguments *made, const flat_call *call) {
    attn_sdpa_gradients *const inside = &made->gradients;
    made->layer_gradients = (attn_mha_gradients){
        .struct_size = sizeof made->layer_gradients,
        .accumulate = inside->accumulate,
        .output = inside->output,
        .query = inside->query,
        .key = inside->key,
        .value = inside->value,
        .parameters = &made->tensors[FLAT_GRADIENT_PARAMETER],
        .num_parameters = call->num_parameters,
        .attention = inside,
    };
    inside->accumulate = 0;
    inside->output = inside->query = inside->key = inside->value = NULL;
}

static void assemble_saved(arguments *made) {
    const attn_tensor *const saved = present(&made->tensors[FLAT_SAVED]);
    if (saved != NULL) {
        made->forward.saved = saved->data;
        made->forward.saved_bytes = (uint64_t)saved->shape[0] * sizeof(int64_t);
    }
}

/* `data` has a pointer for each tensor. NULL: nobody looks at them. */
static void assemble(arguments *made, const flat_call *call, const attn_tensor *layouts,
                     flat_data *const *data) {
    attn_tensor *const tensors = made->tensors;
    for (int i = 0; i < FLAT_TENSORS; ++i) {
        tensors[i] = layouts[i];
        tensors[i].data = data == NULL ? NULL : data[i];
    }
    made->query = present(&tensors[FLAT_QUERY]);
    made->key = present(&tensors[FLAT_KEY]);
    made->value = present(&tensors[FLAT_VALUE]);
    made->output = present(&tensors[FLAT_OUTPUT]);
    assemble_places(made, call);
    assemble_gradients(made, call);
    made->attention = call->attention;
    made->attention.mask = present(&tensors[FLAT_MASK]);
    made->attention.bias = present(&tensors[FLAT_BIAS]);
    made->attention.query_offset = present(&tensors[FLAT_QUERY_OFFSET]);
    made->attention.key_lengths = present(&tensors[FLAT_KEY_LENGTHS]);
    made->attention.alibi_slopes = present(&tensors[FLAT_ALIBI_SLOPES]);
    made->attention.sinks = present(&tensors[FLAT_SINKS]);
    made->attention.lse = present(&tensors[FLAT_LSE]);
    made->attention.weights = present(&tensors[FLAT_WEIGHTS]);
    made->attention.scores = present(&tensors[FLAT_SCORES]);
    made->attention.query_starts = present(&tensors[FLAT_QUERY_STARTS]);
    made->attention.mask_start = present(&tensors[FLAT_MASK_START]);
    made->attention.position_bias = present(&tensors[FLAT_POSITION_BIAS]);
    made->attention.block_mask = present(&tensors[FLAT_BLOCK_MASK]);
    made->attention.dropout = call->has_dropout ? &call->dropout : NULL;
    made->attention.kv = made->kv;
    made->forward = call->forward;
    made->forward.key_padding_mask = present(&tensors[FLAT_KEY_PADDING_MASK]);
    made->forward.attention = &made->attention;
    made->forward.cache = call->has_cache ? &made->places : NULL;
    made->rope = call->rope;
    made->rope.frequencies = present(&tensors[FLAT_ROPE_FREQUENCIES]);
    made->rope.cos = present(&tensors[FLAT_ROPE_COS]);
    made->rope.sin = present(&tensors[FLAT_ROPE_SIN]);
    made->rope.positions = present(&tensors[FLAT_ROPE_POSITIONS]);
    made->rope.lengths = present(&tensors[FLAT_ROPE_LENGTHS]);
    made->forward.rope = call->has_rope ? &made->rope : NULL;
    assemble_saved(made);
}

attn_status flat_run(const flat_call *call, const attn_tensor *layouts, FLAT_DATA) {
    arguments a;
    assemble(&a, call, layouts, (flat_data *const[]){FLAT_ARGUMENTS});
    if (call->appends) {
        return attn_kv_append(call->context, a.kv, a.key, a.value, &a.append);
    }
    if (call->goes_back && call->layer != NULL) {
        assemble_layer_gradients(&a, call);
        return attn_mha_backward(call->context, call->layer, a.query, a.key, a.value, &a.forward,
                                 &a.layer_gradients, NULL, 0);
    }
    if (call->goes_back) {
        return attn_sdpa_backward(call->context, a.query, a.key, a.value, &a.attention, a.output,
                                  &a.gradients, NULL, 0);
    }
    return call->layer == NULL
               ? attn_sdpa(call->context, a.query, a.key, a.value, &a.attention, a.output, NULL, 0)
               : attn_mha_forward(call->context, call->layer, a.query, a.key, a.value, &a.forward,
                                  a.output, NULL, 0);
}

attn_status flat_describe_outputs(const flat_call *call, const attn_tensor *layouts,
                                  attn_sdpa_outputs *outputs) {
    arguments a;
    assemble(&a, call, layouts, NULL);
    if (call->layer == NULL) {
        return attn_sdpa_describe_outputs(a.query, a.key, a.value, &a.attention, outputs);
    }
    attn_mha_outputs made = {.struct_size = sizeof made};
    const attn_status status =
        attn_mha_describe_outputs(call->layer, a.query, a.key, a.value, &a.forward, &made);
    if (status == ATTN_OK) {
        outputs->output = made.output;
        outputs->lse = made.lse;
        outputs->weights = made.weights;
        outputs->averaged_weights = made.averaged_weights;
        outputs->scores = made.scores;
    }
    return status;
}

attn_status flat_explain(const flat_call *call, const attn_tensor *layouts,
                         attn_sdpa_report *attention, attn_mha_report *layer) {
    arguments a;
    assemble(&a, call, layouts, NULL);
    if (call->layer == NULL) {
        return attn_sdpa_explain(call->context, a.query, a.key, a.value, &a.attention, a.output,
                                 attention);
    }
    attn_mha_report made = *layer;
    made.attention = attention;
    const attn_status status = attn_mha_explain(call->context, call->layer, a.query, a.key, a.value,
                                                &a.forward, a.output, &made);
    made.attention = NULL;
    *layer = made;
    return status;
}

attn_status flat_explain_backward(const flat_call *call, const attn_tensor *layouts,
                                  attn_sdpa_backward_report *report) {
    arguments a;
    assemble(&a, call, layouts, NULL);
    return attn_sdpa_backward_explain(call->context, a.query, a.key, a.value, &a.attention,
                                      a.output, &a.gradients, report);
}

attn_status flat_saved_bytes(const flat_call *call, const attn_tensor *layouts, size_t *bytes) {
    arguments a;
    assemble(&a, call, layouts, NULL);
    return attn_mha_saved_bytes(call->context, call->layer, a.query, a.key, a.value, &a.forward,
                                bytes);
}

attn_status flat_mha_load_parameter(attn_context *context, attn_mha *layer, const char *name,
                                    const attn_tensor *layout, flat_data *data) {
    attn_tensor values = *layout;
    values.data = data;
    return attn_mha_load_parameter(context, layer, name, present(&values), NULL);
}

attn_status flat_mha_read_parameter(attn_context *context, const attn_mha *layer, const char *name,
                                    const attn_tensor *layout, flat_data *data) {
    attn_tensor values = *layout;
    values.data = data;
    return attn_mha_read_parameter(context, layer, name, present(&values));
}

/* `layouts` with data, in their order. */
static void fill(attn_tensor *tensors, int count, const attn_tensor *layouts,
                 flat_data *const *data) {
    for (int i = 0; i < count; ++i) {
        tensors[i] = layouts[i];
        tensors[i].data = data[i];
    }
}

attn_status flat_rope(attn_context *context, const attn_rope_params *numbers,
                      const attn_tensor *layouts, flat_data *input, flat_data *output,
                      flat_data *frequencies, flat_data *cos, flat_data *sin, flat_data *positions,
                      flat_data *lengths) {
    attn_tensor tensors[7];
    fill(tensors, 7, layouts,
         (flat_data *const[]){input, output, frequencies, cos, sin, positions, lengths});
    attn_rope_params params = *numbers;
    params.frequencies = present(&tensors[2]);
    params.cos = present(&tensors[3]);
    params.sin = present(&tensors[4]);
    params.positions = present(&tensors[5]);
    params.lengths = present(&tensors[6]);
    return attn_rope(context, present(&tensors[0]), &params, present(&tensors[1]));
}

attn_status flat_rms_norm(attn_context *context, const attn_rms_norm_params *numbers,
                          const attn_tensor *layouts, flat_data *input, flat_data *output,
                          flat_data *weight) {
    attn_tensor tensors[3];
    fill(tensors, 3, layouts, (flat_data *const[]){input, output, weight});
    attn_rms_norm_params params = *numbers;
    params.weight = present(&tensors[2]);
    return attn_rms_norm(context, present(&tensors[0]), &params, present(&tensors[1]));
}

attn_status flat_merge_part(uintptr_t merging, int64_t index, flat_part *after,
                            const attn_tensor *layouts, flat_data *output, flat_data *lse) {
    flat_part part = {.after = after, .output = layouts[0], .lse = layouts[1]};
    part.output.data = output;
    part.lse.data = lse;
    return attention_merge_rest(merging, index, &part);
}

attn_status flat_merge(attn_context *context, int64_t count, const flat_part *parts,
                       int32_t has_lses, const attn_tensor *layouts, flat_data *output,
                       flat_data *lse, flat_data *sinks) {
    attn_tensor tensors[3];
    fill(tensors, 3, layouts, (flat_data *const[]){output, lse, sinks});
    const attn_merge_params params = {.struct_size = sizeof params, .sinks = present(&tensors[2])};
    attn_tensor *const outputs = calloc((size_t)count + 1, 2 * sizeof *outputs);
    if (outputs == NULL) {
        return attn_error_set(ATTN_ERROR_MEMORY, "parts: no memory for their views");
    }
    attn_tensor *const lses = outputs + count;
    for (int64_t i = 0; parts != NULL; parts = parts->after, ++i) {
        outputs[i] = parts->output;
        lses[i] = parts->lse;
    }
    const attn_status status = attn_sdpa_merge(context, count, outputs, has_lses ? lses : NULL,
                                               &params, present(&tensors[0]), present(&tensors[1]));
    free(outputs);
    return status;
}

static void tell(void *visitor, const char *check, attn_status status, const char *detail) {
    attention_tell((uintptr_t)visitor, (char *)check, status, (char *)detail);
}

attn_status flat_selftest(attn_context *context, uintptr_t visitor) {
    const attn_selftest_params params = {
        .struct_size = sizeof params, .visit = tell, .visit_state = (void *)visitor};
    return attn_selftest(context, &params);
}
