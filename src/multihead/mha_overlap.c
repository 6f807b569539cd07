/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_overlap.c: which tensors a forward call writes and which it reads: they lie apart.
 */
#include "cache/append_scales.h"
#include "multihead/mha_layer.h"
#include "problem/kv_tensors.h"

void attni_mha_list_output(attni_mha_tensors *list, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        list->outputs[list->num_outputs++] = (attni_argument){name, tensor};
    }
}

void attni_mha_list_input(attni_mha_tensors *list, const char *name, const attn_tensor *tensor) {
    if (tensor != NULL) {
        list->inputs[list->num_inputs++] = (attni_argument){name, tensor};
    }
}

static void add_cache(const attni_mha_problem *problem, attni_mha_tensors *list) {
    attni_argument tensors[ATTNI_KV_TENSORS];
    attni_kv_list(&attni_names_of_cache, &problem->cache, tensors);
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        const bool is_written = problem->appends && attni_append_writes(&problem->cache, i);
        (is_written ? attni_mha_list_output : attni_mha_list_input)(list, tensors[i].name,
                                                                    tensors[i].tensor);
    }
}

static void add_options(const attni_mha_problem *problem, attni_mha_tensors *list) {
    const attn_sdpa_params *attention = &problem->attention;
    const attn_rope_params *rope = &problem->rope;
    attni_mha_list_input(list, "key_padding_mask", problem->params.key_padding_mask);
    attni_mha_list_input(list, "attention.mask", attention->mask);
    attni_mha_list_input(list, "attention.bias", attention->bias);
    attni_mha_list_input(list, "attention.mask_start", attention->mask_start);
    attni_mha_list_input(list, "attention.position_bias", attention->position_bias);
    attni_mha_list_input(list, "attention.block_mask", attention->block_mask);
    attni_mha_list_input(list, "attention.query_offset", attention->query_offset);
    attni_mha_list_input(list, "attention.key_lengths", attention->key_lengths);
    attni_mha_list_input(list, "attention.alibi_slopes", attention->alibi_slopes);
    attni_mha_list_input(list, "attention.sinks", attention->sinks);
    attni_mha_list_input(list, "rope.frequencies", rope->frequencies);
    attni_mha_list_input(list, "rope.cos", rope->cos);
    attni_mha_list_input(list, "rope.sin", rope->sin);
    attni_mha_list_input(list, "rope.positions", rope->positions);
    attni_mha_list_input(list, "rope.lengths", rope->lengths);
}

static void add_parameters(const attn_mha *layer, attni_mha_tensors *list) {
    for (int32_t slot = 0; slot < ATTNI_NUM_SLOTS; ++slot) {
        const attn_tensor *view = &layer->slots[slot].view;
        attni_mha_list_input(list, attni_mha_slot_name(layer, slot),
                             view->data != NULL ? view : NULL);
    }
}

void attni_mha_list_read(const attni_mha_problem *problem, attni_mha_tensors *list) {
    attni_mha_list_input(list, "query", &problem->query);
    attni_mha_list_input(list, "key", &problem->key);
    attni_mha_list_input(list, "value", &problem->value);
    add_options(problem, list);
    add_parameters(problem->layer, list);
}

const attn_tensor *attni_mha_saved_tensor(const attni_mha_problem *problem,
                                          const attni_mha_plan *plan, attni_mha_tensors *list) {
    list->saved = (attn_tensor){.data = problem->params.saved,
                                .dtype = ATTN_DTYPE_BOOL,
                                .rank = 1,
                                .shape = {(int64_t)plan->saved.bytes},
                                .strides = {1}};
    return problem->saves ? &list->saved : NULL;
}

attn_status attni_mha_check_apart(const attni_mha_tensors *list, const void *workspace,
                                  size_t workspace_bytes) {
    ATTNI_TRY(
        attni_check_outputs(list->outputs, list->num_outputs, list->inputs, list->num_inputs));
    ATTNI_TRY(
        attni_check_workspace_apart(workspace, workspace_bytes, list->outputs, list->num_outputs));
    return attni_check_workspace_apart(workspace, workspace_bytes, list->inputs, list->num_inputs);
}

attn_status attni_mha_check_overlap(const attni_mha_problem *problem, const attni_mha_plan *plan,
                                    const void *workspace, size_t workspace_bytes) {
    attni_mha_tensors list;
    list.num_outputs = 0;
    list.num_inputs = 0;
    attni_mha_list_output(&list, "output", &problem->output);
    attni_mha_list_output(&list, "attention.weights", problem->attention.weights);
    attni_mha_list_output(&list, "attention.lse", problem->attention.lse);
    attni_mha_list_output(&list, "attention.scores", problem->attention.scores);
    attni_mha_list_output(&list, "saved", attni_mha_saved_tensor(problem, plan, &list));
    attni_mha_list_read(problem, &list);
    if (problem->has_cache) {
        add_cache(problem, &list);
    }
    return attni_mha_check_apart(&list, workspace, workspace_bytes);
}
