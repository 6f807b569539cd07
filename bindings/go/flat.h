/* SPDX-License-Identifier: BSD-3-Clause
 *
 * flat.h: the calls in a form that Go's rules for pointers allow.
 *
 * Go may hand C the address of Go memory only if that memory holds no Go pointer itself. So no
 * attn_tensor with Go data in it can be passed, nor a struct that points to one. Here every data
 * pointer is an argument of its own, and the structs beside it come with NULL where their pointers
 * go; they are put together in C, on the stack of the call.
 */
#ifndef ATTENTION_GO_FLAT_H
#define ATTENTION_GO_FLAT_H

#include <attention/attention.h>

/* The tensors of a call, in the order of FLAT_DATA. One that is absent has an invalid dtype. */
enum flat_tensor {
    FLAT_QUERY,
    FLAT_KEY,
    FLAT_VALUE,
    FLAT_OUTPUT,
    FLAT_MASK,
    FLAT_BIAS,
    FLAT_KEY_PADDING_MASK,
    FLAT_QUERY_OFFSET,
    FLAT_KEY_LENGTHS,
    FLAT_ALIBI_SLOPES,
    FLAT_SINKS,
    FLAT_LSE,
    FLAT_WEIGHTS,
    FLAT_SCORES,
    FLAT_QUERY_STARTS,
    FLAT_MASK_START,
    FLAT_POSITION_BIAS,
    FLAT_BLOCK_MASK,
    FLAT_KV_KEY, /* fields of attn_kv, to FLAT_KV_VALUE_ZERO */
    FLAT_KV_VALUE,
    FLAT_KV_PAGE_TABLE,
    FLAT_KV_PAGE_STARTS,
    FLAT_KV_STARTS,
    FLAT_KV_LENGTHS,
    FLAT_KV_KEY_SCALE,
    FLAT_KV_VALUE_SCALE,
    FLAT_KV_KEY_ZERO,
    FLAT_KV_VALUE_ZERO,
    FLAT_NEW_STARTS, /* fields of attn_kv_append_params */
    FLAT_NEW_POSITIONS,
    FLAT_ROPE_FREQUENCIES, /* fields of a layer's attn_rope_params */
    FLAT_ROPE_COS,
    FLAT_ROPE_SIN,
    FLAT_ROPE_POSITIONS,
    FLAT_ROPE_LENGTHS,
    FLAT_GRADIENT_OUTPUT, /* fields of attn_sdpa_gradients */
    FLAT_GRADIENT_LSE,
    FLAT_GRADIENT_WEIGHTS,
    FLAT_GRADIENT_QUERY,
    FLAT_GRADIENT_KEY,
    FLAT_GRADIENT_VALUE,
    FLAT_GRADIENT_MASK,
    FLAT_GRADIENT_BIAS,
    FLAT_GRADIENT_POSITION_BIAS,
    FLAT_GRADIENT_ALIBI_SLOPES,
    FLAT_GRADIENT_SINKS,
    FLAT_SAVED,              /* what a layer's call saved, as a tensor of int64 */
    FLAT_GRADIENT_PARAMETER, /* of a layer's parameters, in its order; one without data: not wanted */
    FLAT_TENSORS = FLAT_GRADIENT_PARAMETER + 10
};

/* As many as any layer has. */
enum { FLAT_MOST_PARAMETERS = FLAT_TENSORS - FLAT_GRADIENT_PARAMETER };

/* Typed, not void: of a void pointer Go would inspect the whole object that it points into. */
typedef unsigned char flat_data;

#define FLAT_DATA                                                                                \
    flat_data *query, flat_data *key, flat_data *value, flat_data *output, flat_data *mask,      \
        flat_data *bias, flat_data *key_padding_mask, flat_data *query_offset,                   \
        flat_data *key_lengths, flat_data *alibi_slopes, flat_data *sinks, flat_data *lse,       \
        flat_data *weights, flat_data *scores, flat_data *query_starts, flat_data *mask_start,   \
        flat_data *position_bias, flat_data *block_mask, flat_data *kv_key, flat_data *kv_value, \
        flat_data *kv_page_table, flat_data *kv_page_starts, flat_data *kv_starts,               \
        flat_data *kv_lengths, flat_data *kv_key_scale, flat_data *kv_value_scale,               \
        flat_data *kv_key_zero, flat_data *kv_value_zero, flat_data *new_starts,                 \
        flat_data *new_positions, flat_data *rope_frequencies, flat_data *rope_cos,              \
        flat_data *rope_sin, flat_data *rope_positions, flat_data *rope_lengths,                 \
        flat_data *gradient_output, flat_data *gradient_lse, flat_data *gradient_weights,        \
        flat_data *gradient_query, flat_data *gradient_key, flat_data *gradient_value,           \
        flat_data *gradient_mask, flat_data *gradient_bias, flat_data *gradient_position_bias,   \
        flat_data *gradient_alibi_slopes, flat_data *gradient_sinks, flat_data *saved,           \
        flat_data *parameter_0, flat_data *parameter_1, flat_data *parameter_2,                  \
        flat_data *parameter_3, flat_data *parameter_4, flat_data *parameter_5,                  \
        flat_data *parameter_6, flat_data *parameter_7, flat_data *parameter_8,                  \
        flat_data *parameter_9

/* A call, but for its tensors. */
typedef struct flat_call {
    attn_context *context;      /* NULL: the default one */
    const attn_mha *layer;      /* NULL: attn_sdpa, without one */
    attn_sdpa_params attention; /* of attn_sdpa, or of the attention inside the layer */
    attn_dropout dropout;       /* of the attention */
    attn_mha_params forward;    /* of the layer */
    attn_rope_params rope;      /* of the layer */
    int32_t has_kv;             /* 1: the fields of attn_kv count, as those of the attention */
    int32_t has_cache;          /* 1: as those of the layer's cache */
    int32_t has_rope;           /* 1: rope and its fields count */
    int32_t has_dropout;        /* 1: dropout counts */
    int32_t appends;            /* 1: attn_kv_append; key and value are the new rows */
    int32_t goes_back;          /* 1: attn_sdpa_backward, output and lse are read; of a layer
                                   attn_mha_backward, saved is */
    int32_t accumulates;        /* what the struct of gradients has of that name */
    int64_t num_parameters;     /* of the layer, where it goes back */
} flat_call;

/* attn_sdpa, attn_mha_forward, what goes back from them, or attn_kv_append. */
attn_status flat_run(const flat_call *call, const attn_tensor *layouts, FLAT_DATA);

/* attn_sdpa_describe_outputs or attn_mha_describe_outputs, which look at no data. */
attn_status flat_describe_outputs(const flat_call *call, const attn_tensor *layouts,
                                  attn_sdpa_outputs *outputs);

/* attn_sdpa_explain, or attn_mha_explain, which fills `layer` too. */
attn_status flat_explain(const flat_call *call, const attn_tensor *layouts,
                         attn_sdpa_report *attention, attn_mha_report *layer);

/* attn_sdpa_backward_explain. */
attn_status flat_explain_backward(const flat_call *call, const attn_tensor *layouts,
                                  attn_sdpa_backward_report *report);

/* attn_mha_saved_bytes. */
attn_status flat_saved_bytes(const flat_call *call, const attn_tensor *layouts, size_t *bytes);

attn_status flat_mha_load_parameter(attn_context *context, attn_mha *layer, const char *name,
                                    const attn_tensor *layout, flat_data *data);

attn_status flat_mha_read_parameter(attn_context *context, const attn_mha *layer, const char *name,
                                    const attn_tensor *layout, flat_data *data);

/* attn_rope. layouts: of the data, in its order. */
attn_status flat_rope(attn_context *context, const attn_rope_params *numbers,
                      const attn_tensor *layouts, flat_data *input, flat_data *output,
                      flat_data *frequencies, flat_data *cos, flat_data *sin, flat_data *positions,
                      flat_data *lengths);

/* attn_rms_norm, likewise. */
attn_status flat_rms_norm(attn_context *context, const attn_rms_norm_params *numbers,
                          const attn_tensor *layouts, flat_data *input, flat_data *output,
                          flat_data *weight);

/* A part of a merge, on the stack of the call that was handed its data. */
typedef struct flat_part {
    const struct flat_part *after;
    attn_tensor output;
    attn_tensor lse;
} flat_part;

/* Goes on with the parts before this one, part `index` of the Go merging of this handle. layouts: of
 * output and lse. */
attn_status flat_merge_part(uintptr_t merging, int64_t index, flat_part *after,
                            const attn_tensor *layouts, flat_data *output, flat_data *lse);

/* attn_sdpa_merge of a list of `count` parts. layouts: of the data. */
attn_status flat_merge(attn_context *context, int64_t count, const flat_part *parts,
                       int32_t has_lses, const attn_tensor *layouts, flat_data *output,
                       flat_data *lse, flat_data *sinks);

/* attn_selftest, which tells the Go visitor of this handle. */
attn_status flat_selftest(attn_context *context, uintptr_t visitor);

#endif
