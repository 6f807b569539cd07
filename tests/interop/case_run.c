/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_run.c: the options of a case as the structs of the interface, and the calls.
 */
#include "case_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

#include "case_gradients.h"
#include "case_results.h"

/* Whether the call ended as the case says. 1: compare what it computed. */
static int check_status(const interop_case *made, attn_status status, char *problem,
                        size_t problem_bytes) {
    const char *text = status == ATTN_OK ? "" : attn_last_error();
    if (status != made->error_code || strcmp(text, made->error_text) != 0) {
        snprintf(problem, problem_bytes, "expected status %d \"%s\", got %d \"%s\"",
                 made->error_code, made->error_text, status, text);
        return -1;
    }
    return status == ATTN_OK;
}

/* ---- what a case may hold ---- */

/* Words separated by one blank. */
static const char sdpa_words[] =
    " query key value attn_mask bias query_offset key_lengths sinks alibi_slopes is_causal scale "
    "enable_gqa align_end window_left window_right softcap normalizer output lse weights "
    "mask_start position_bias block_mask block_rows block_columns "
    "dropout_probability dropout_seed dropout_offset dropout_batch dropout_head dropout_row "
    "dropout_column gradient.output gradient.query gradient.key gradient.value "
    "gradient.attn_mask ";
static const char mha_words[] =
    " query key value attn_mask bias key_padding_mask embed_dim num_heads kdim vdim qdim head_dim "
    "value_head_dim num_kv_heads no_bias add_bias_kv add_zero_attn batch_first is_causal "
    "need_weights average_attn_weights parameter_dtype attn_output attn_weights "
    "gradient.attn_output gradient.attn_weights gradient.query gradient.key gradient.value "
    "gradient.attn_mask ";

/* Parameters are checked by the layer itself, and gradients of theirs by who compares results. */
static int is_known(const char *words, const char *name) {
    char word[CASE_NAME_BYTES + 2];
    snprintf(word, sizeof word, " %s ", name);
    return strstr(words, word) != NULL || strncmp(name, "parameter.", strlen("parameter.")) == 0 ||
           strncmp(name, "gradient.parameter.", strlen("gradient.parameter.")) == 0;
}

static const char *first_unknown(const interop_case *made, const char *words) {
    for (int i = 0; i < made->num_options; ++i) {
        if (!is_known(words, made->options[i].name)) {
            return made->options[i].name;
        }
    }
    for (int i = 0; i < made->num_tensors; ++i) {
        if (!is_known(words, made->tensors[i].name)) {
            return made->tensors[i].name;
        }
    }
    for (int i = 0; i < made->num_expected; ++i) {
        if (!is_known(words, made->expected[i].name)) {
            return made->expected[i].name;
        }
    }
    return NULL;
}

/* ---- scaled dot-product attention ---- */

static int32_t normalizer_of(const char *name) {
    static const char *const names[] = {"softmax", "sigmoid", "linear"};
    int32_t normalizer = 0;
    while (name != NULL && normalizer < 3 && strcmp(name, names[normalizer]) != 0) {
        normalizer++;
    }
    return normalizer;
}

static attn_sdpa_params sdpa_params(const interop_case *made) {
    const attn_tensor *mask = case_view(made, "attn_mask");
    attn_sdpa_params params = {
        .struct_size = sizeof params,
        .is_causal = (int32_t)case_number(made, "is_causal", 0),
        .softcap = case_real(made, "softcap", 0),
        .enable_gqa = (int32_t)case_number(made, "enable_gqa", 0),
        .align_end = (int32_t)case_number(made, "align_end", 0),
        .normalizer = normalizer_of(case_text(made, "normalizer")),
        .mask = mask,
        .bias = case_view(made, "bias"),
        .query_offset = case_view(made, "query_offset"),
        .key_lengths = case_view(made, "key_lengths"),
        .alibi_slopes = case_view(made, "alibi_slopes"),
        .sinks = case_view(made, "sinks"),
        .mask_start = case_view(made, "mask_start"),
        .position_bias = case_view(made, "position_bias"),
        .block_mask = case_view(made, "block_mask"),
        .block_rows = case_number(made, "block_rows", 0),
        .block_columns = case_number(made, "block_columns", 0),
    };
    if (mask != NULL) {
        params.mask_kind =
            mask->dtype == ATTN_DTYPE_BOOL ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_ADDITIVE;
    }
    if (case_text(made, "scale") != NULL) {
        params.set |= ATTN_SDPA_SET_SCALE;
        params.scale = case_real(made, "scale", 0);
    }
    if (case_text(made, "window_left") != NULL) {
        params.set |= ATTN_SDPA_SET_WINDOW;
        params.window_left = case_number(made, "window_left", -1);
        params.window_right = case_number(made, "window_right", -1);
    }
    return params;
}

/* Of the case, if it has one, into `dropout`. */
static const attn_dropout *find_dropout(const interop_case *made, attn_dropout *dropout) {
    *dropout = (attn_dropout){
        .struct_size = sizeof *dropout,
        .probability = case_real(made, "dropout_probability", 0),
        .seed = (uint64_t)case_number(made, "dropout_seed", 0),
        .offset = (uint64_t)case_number(made, "dropout_offset", 0),
        .batch = case_number(made, "dropout_batch", 0),
        .head = case_number(made, "dropout_head", 0),
        .row = case_number(made, "dropout_row", 0),
        .column = case_number(made, "dropout_column", 0),
    };
    return case_text(made, "dropout_probability") != NULL ? dropout : NULL;
}

/* Room for lse, if the case expects it or its gradients are computed from it. */
static const attn_tensor *make_lse(const interop_case *made, const attn_sdpa_params *params,
                                   case_results *room) {
    const attn_tensor *expected = case_results_expected(made, room, "lse");
    if (expected != NULL || !case_has_gradients(made)) {
        return expected;
    }
    attn_sdpa_outputs described = {.struct_size = sizeof described};
    if (attn_sdpa_describe_outputs(case_view(made, "query"), case_view(made, "key"),
                                   case_view(made, "value"), params, &described) != ATTN_OK) {
        return NULL;
    }
    return case_results_make(room, NULL, described.lse.dtype, described.lse.rank,
                             described.lse.shape);
}

static attn_status run_sdpa(const interop_case *made, case_results *room) {
    const attn_tensor *value = case_view(made, "value");
    attn_sdpa_params params = sdpa_params(made);
    attn_dropout dropout;
    params.dropout = find_dropout(made, &dropout);
    params.lse = make_lse(made, &params, room);
    params.weights = case_results_expected(made, room, "weights");
    const attn_tensor *output =
        case_results_main(made, room, "output", value->shape[value->rank - 1]);
    const attn_status status = attn_sdpa(NULL, case_view(made, "query"), case_view(made, "key"),
                                         value, &params, output, NULL, 0);
    return status == ATTN_OK && case_has_gradients(made)
               ? case_sdpa_backward(made, &params, output, room)
               : status;
}

/* ---- multi-head attention ---- */

static attn_mha_config mha_config(const interop_case *made) {
    const char *parameter_dtype = case_text(made, "parameter_dtype");
    return (attn_mha_config){
        .struct_size = sizeof(attn_mha_config),
        .embed_dim = case_number(made, "embed_dim", 0),
        .num_heads = case_number(made, "num_heads", 0),
        .kdim = case_number(made, "kdim", 0),
        .vdim = case_number(made, "vdim", 0),
        .qdim = case_number(made, "qdim", 0),
        .num_kv_heads = case_number(made, "num_kv_heads", 0),
        .head_dim = case_number(made, "head_dim", 0),
        .value_head_dim = case_number(made, "value_head_dim", 0),
        .dtype = case_view(made, "query")->dtype,
        .no_bias = (int32_t)case_number(made, "no_bias", 0),
        .add_bias_kv = (int32_t)case_number(made, "add_bias_kv", 0),
        .add_zero_attn = (int32_t)case_number(made, "add_zero_attn", 0),
        .batch_first = (int32_t)case_number(made, "batch_first", 0),
        .parameter_dtype = parameter_dtype != NULL ? case_dtype(parameter_dtype) : 0,
    };
}

static int32_t mask_kind(const attn_tensor *mask) {
    if (mask == NULL) {
        return ATTN_MASK_NONE;
    }
    return mask->dtype == ATTN_DTYPE_BOOL ? ATTN_MASK_BOOL_EXCLUDE : ATTN_MASK_ADDITIVE;
}

static attn_status load_parameters(const interop_case *made, attn_mha *layer) {
    static const char prefix[] = "parameter.";
    attn_status status = ATTN_OK;
    for (int i = 0; i < made->num_tensors && status == ATTN_OK; ++i) {
        const case_tensor *tensor = &made->tensors[i];
        if (strncmp(tensor->name, prefix, sizeof prefix - 1) == 0) {
            status = attn_mha_load_parameter(NULL, layer, tensor->name + sizeof prefix - 1,
                                             &tensor->view, NULL);
        }
    }
    return status;
}

/* A call whose gradients are expected, too. */
static attn_status forward_and_back(const interop_case *made, const attn_mha *layer,
                                    attn_mha_params *params, const attn_tensor *output,
                                    case_results *room) {
    const attn_tensor *query = case_view(made, "query");
    const attn_tensor *key = case_view(made, "key");
    const attn_tensor *value = case_view(made, "value");
    size_t bytes = 0;
    attn_status status = attn_mha_saved_bytes(NULL, layer, query, key, value, params, &bytes);
    if (status != ATTN_OK) {
        return status;
    }
    params->saved = malloc(bytes + 1);
    params->saved_bytes = bytes;
    status = attn_mha_forward(NULL, layer, query, key, value, params, output, NULL, 0);
    if (status == ATTN_OK) {
        status = case_mha_backward(made, layer, params, room);
    }
    free(params->saved);
    return status;
}

static attn_status run_layer(const interop_case *made, attn_mha *layer, case_results *room) {
    const attn_tensor *attn_mask = case_view(made, "attn_mask");
    const attn_tensor *key_padding_mask = case_view(made, "key_padding_mask");
    const attn_tensor *output =
        case_results_main(made, room, "attn_output", case_number(made, "embed_dim", 0));
    const attn_sdpa_params attention = {
        .struct_size = sizeof attention,
        .is_causal = (int32_t)case_number(made, "is_causal", 0),
        .mask_kind = mask_kind(attn_mask),
        .mask = attn_mask,
        .bias = case_view(made, "bias"),
        .weights = case_results_expected(made, room, "attn_weights"),
    };
    attn_mha_params params = {
        .struct_size = sizeof params,
        .key_padding_mask_kind = mask_kind(key_padding_mask),
        .key_padding_mask = key_padding_mask,
        .attention = &attention,
    };
    return case_has_gradients(made)
               ? forward_and_back(made, layer, &params, output, room)
               : attn_mha_forward(NULL, layer, case_view(made, "query"), case_view(made, "key"),
                                  case_view(made, "value"), &params, output, NULL, 0);
}

static attn_status run_mha(const interop_case *made, case_results *room) {
    const attn_mha_config config = mha_config(made);
    attn_mha *layer = NULL;
    attn_status status = attn_mha_create(NULL, &config, &layer);
    if (status == ATTN_OK) {
        status = load_parameters(made, layer);
    }
    if (status == ATTN_OK) {
        status = run_layer(made, layer, room);
    }
    attn_mha_destroy(layer);
    return status;
}

int case_run(const interop_case *made, char *problem, size_t problem_bytes) {
    case_results room = {.count = 0};
    const int is_sdpa = strcmp(made->call, "sdpa") == 0;
    const char *unknown = first_unknown(made, is_sdpa ? sdpa_words : mha_words);
    if (unknown != NULL || (!is_sdpa && strcmp(made->call, "mha") != 0)) {
        snprintf(problem, problem_bytes, "unknown: %s", unknown != NULL ? unknown : made->call);
        return -1;
    }
    if (case_view(made, "query") == NULL || case_view(made, "key") == NULL ||
        case_view(made, "value") == NULL) {
        snprintf(problem, problem_bytes, "no query, key or value");
        return -1;
    }
    const attn_status status = is_sdpa ? run_sdpa(made, &room) : run_mha(made, &room);
    int result = check_status(made, status, problem, problem_bytes);
    if (result == 1) {
        result = case_results_compare(made, &room, problem, problem_bytes);
    }
    case_results_free(&room);
    return result;
}
