/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_overlap.c: which tensors a forward call writes and which it reads: they lie apart.
 */
#include "cache/append_scales.h"
#include "multihead/mha_layer.h"
#include "problem/kv_tensors.h"

enum { MOST_OUTPUTS = 4 + 6, MOST_INPUTS = 19 + ATTNI_KV_TENSORS + ATTNI_NUM_SLOTS };

typedef struct tensor_lists {
    attni_argument outputs[MOST_OUTPUTS];
    attni_argument inputs[MOST_INPUTS];
    int32_t num_outputs;
    int32_t num_inputs;
} tensor_lists;

static void add_output(tensor_lists *lists, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        lists->outputs[lists->num_outputs++] = (attni_argument){name, tensor};
    }
}

static void add_input(tensor_lists *lists, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        lists->inputs[lists->num_inputs++] = (attni_argument){name, tensor};
    }
}

static void add_cache(const attni_mha_problem *problem, tensor_lists *lists) {
    attni_argument tensors[ATTNI_KV_TENSORS];
    attni_kv_list(&attni_names_of_cache, &problem->cache, tensors);
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        const bool is_written = problem->appends && attni_append_writes(&problem->cache, i);
        (is_written ? add_output : add_input)(lists, tensors[i].name, tensors[i].tensor);
    }
}

static void add_options(const attni_mha_problem *problem, tensor_lists *lists) {
    const attn_sdpa_params *attention = &problem->attention;
    const attn_rope_params *rope = &problem->rope;
    add_input(lists, "key_padding_mask", problem->params.key_padding_mask);
    add_input(lists, "attention.mask", attention->mask);
    add_input(lists, "attention.bias", attention->bias);
    add_input(lists, "attention.mask_start", attention->mask_start);
    add_input(lists, "attention.position_bias", attention->position_bias);
    add_input(lists, "attention.block_mask", attention->block_mask);
    add_input(lists, "attention.query_offset", attention->query_offset);
    add_input(lists, "attention.key_lengths", attention->key_lengths);
    add_input(lists, "attention.query_starts", attention->query_starts);
    add_input(lists, "attention.alibi_slopes", attention->alibi_slopes);
    add_input(lists, "attention.sinks", attention->sinks);
    add_input(lists, "rope.frequencies", rope->frequencies);
    add_input(lists, "rope.cos", rope->cos);
    add_input(lists, "rope.sin", rope->sin);
    add_input(lists, "rope.positions", rope->positions);
    add_input(lists, "rope.lengths", rope->lengths);
}

static void add_parameters(const attn_mha *layer, tensor_lists *lists) {
    for (int32_t slot = 0; slot < ATTNI_NUM_SLOTS; ++slot) {
        const attn_tensor *view = &layer->slots[slot].view;
        add_input(lists, attni_mha_slot_name(layer, slot), view->data != NULL ? view : NULL);
    }
}

/* Views were checked by then: a wrong rank would be read past its axes. */
attn_status attni_mha_check_overlap(const attni_mha_problem *problem, const void *workspace,
                                    size_t workspace_bytes) {
    tensor_lists lists;
    lists.num_outputs = 0;
    lists.num_inputs = 0;
    add_output(&lists, "output", &problem->output);
    add_output(&lists, "attention.weights", problem->attention.weights);
    add_output(&lists, "attention.lse", problem->attention.lse);
    add_output(&lists, "attention.scores", problem->attention.scores);
    add_input(&lists, "query", &problem->query);
    add_input(&lists, "key", &problem->key);
    add_input(&lists, "value", &problem->value);
    add_options(problem, &lists);
    if (problem->has_cache) {
        add_cache(problem, &lists);
    }
    add_parameters(problem->layer, &lists);
    ATTNI_TRY(
        attni_check_outputs(lists.outputs, lists.num_outputs, lists.inputs, lists.num_inputs));
    ATTNI_TRY(
        attni_check_workspace_apart(workspace, workspace_bytes, lists.outputs, lists.num_outputs));
    return attni_check_workspace_apart(workspace, workspace_bytes, lists.inputs, lists.num_inputs);
}
