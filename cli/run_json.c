/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_json.c: what "attn run --json" tells programs: one object on one line. Numbers that are not
 * finite are null.
 */
#include <stdio.h>

#include <cjson/cJSON.h>

#include "attention_run.h"
#include "element_types.h"
#include "json_print.h"
#include "program_exit.h"

/* Each of these adds to `object` and returns 0, or -1 when memory runs out. */

static int add_text(cJSON *object, const char *name, const char *text) {
    return cJSON_AddStringToObject(object, name, text) != NULL ? 0 : -1;
}

static int add_number(cJSON *object, const char *name, double number) {
    return cJSON_AddNumberToObject(object, name, number) != NULL ? 0 : -1;
}

static int add_truth(cJSON *object, const char *name, int truth) {
    return cJSON_AddBoolToObject(object, name, truth) != NULL ? 0 : -1;
}

static int add_shape(cJSON *object, const char *name, const attn_tensor *tensor) {
    cJSON *array = cJSON_AddArrayToObject(object, name);
    int failed = array == NULL;
    for (int32_t axis = 0; axis < tensor->rank && !failed; axis++) {
        cJSON *length = cJSON_CreateNumber((double)tensor->shape[axis]);
        failed = length == NULL || !cJSON_AddItemToArray(array, length);
    }
    return failed ? -1 : 0;
}

static int add_layer(cJSON *root, const attention_run *run) {
    const attn_mha_config *config = &run->layer.config;
    cJSON *layer = cJSON_AddObjectToObject(root, "layer");
    int failed = add_text(layer, "file", run->options->layer_path) |
                 add_text(layer, "naming", run->layer.names.naming->title) |
                 add_text(layer, "output_weight", run->layer.names.entries[ROLE_OUT_WEIGHT]->name) |
                 add_number(layer, "embed_dim", (double)config->embed_dim) |
                 add_number(layer, "num_heads", (double)config->num_heads) |
                 add_number(layer, "num_kv_heads", (double)config->num_kv_heads) |
                 add_number(layer, "head_dim", (double)config->head_dim) |
                 add_number(layer, "value_head_dim", (double)config->value_head_dim) |
                 add_truth(layer, "bias", !config->no_bias) |
                 add_truth(layer, "add_bias_kv", config->add_bias_kv) |
                 add_truth(layer, "add_zero_attn", config->add_zero_attn) |
                 add_truth(layer, "batch_first", config->batch_first) |
                 add_number(layer, "num_ignored", (double)run->num_ignored);
    return failed;
}

static int add_shapes(cJSON *root, const attention_run *run) {
    cJSON *shapes = cJSON_AddObjectToObject(root, "shapes");
    int failed = add_shape(shapes, "query", run->query_view) |
                 add_shape(shapes, "key", run->key_view) |
                 add_shape(shapes, "value", run->value_view) |
                 add_shape(shapes, "attn_output", &run->output.view);
    if (run->weights.memory != NULL) {
        failed |= add_shape(shapes, "attn_weights", &run->weights.view);
    }
    return failed;
}

static int add_engine(cJSON *root, const attention_run *run) {
    const attn_sdpa_report *report = &run->report;
    return add_text(root, "version", attn_version_string()) |
           add_text(root, "build", attn_build_info()) |
           add_text(root, "dtype", element_type_of(run->layer.config.dtype)->title) |
           add_text(root, "engine", report->engine == ATTN_ENGINE_FUSED ? "fused" : "blas") |
           add_text(root, "reason", report->reason) | add_text(root, "kernels", report->kernels) |
           add_text(root, "gemm", report->gemm == ATTN_GEMM_BLAS ? "blas" : "native") |
           add_text(root, "blas", run->context_info.blas) |
           add_number(root, "threads", run->context_info.num_threads) |
           add_truth(root, "depends_on_blas_threads", report->depends_on_blas_threads);
}

static int add_time(cJSON *root, const attention_run *run) {
    if (!run->options->time.given) {
        return 0;
    }
    cJSON *time = cJSON_AddObjectToObject(root, "time");
    return add_number(time, "runs", (double)run->options->time.value) |
           add_number(time, "min_ms", run->min_milliseconds) |
           add_number(time, "median_ms", run->median_milliseconds);
}

static int add_expect(cJSON *root, const attention_run *run) {
    if (run->options->expect == NULL) {
        return 0;
    }
    cJSON *expect = cJSON_AddObjectToObject(root, "expect");
    int failed = add_number(expect, "attn_output", run->output_difference.largest) |
                 add_number(expect, "tolerance", run->options->tolerance.value) |
                 add_truth(expect, "within", run_is_within_tolerance(run));
    if (run->weights_difference.is_compared) {
        failed |= add_number(expect, "attn_weights", run->weights_difference.largest);
    }
    return failed;
}

static int add_link(cJSON *links, const attention_run *run, const word_link *link) {
    cJSON *object = cJSON_CreateObject();
    if (object == NULL || !cJSON_AddItemToArray(links, object)) {
        cJSON_Delete(object);
        return -1;
    }
    const char *query_word = token_word(&run->query_words, link->sequence, link->query);
    const char *key_word = token_word(&run->key_words, link->sequence, link->key);
    int failed = add_number(object, "sequence", (double)link->sequence) |
                 add_number(object, "head", (double)link->head) |
                 add_number(object, "query", (double)link->query) |
                 add_number(object, "key", (double)link->key) |
                 add_number(object, "weight", link->weight);
    if (query_word != NULL) {
        failed |= add_text(object, "query_word", query_word);
    }
    if (key_word != NULL) {
        failed |= add_text(object, "key_word", key_word);
    }
    return failed;
}

static int add_links(cJSON *root, const attention_run *run) {
    if (!run->options->links.given) {
        return 0;
    }
    cJSON *links = cJSON_AddArrayToObject(root, "links");
    int failed = links == NULL;
    for (int64_t i = 0; i < run->num_links && !failed; i++) {
        failed = add_link(links, run, &run->links[i]);
    }
    return failed;
}

int run_print_json(const attention_run *run) {
    cJSON *root = cJSON_CreateObject();
    int failed = add_engine(root, run) | add_layer(root, run) | add_shapes(root, run) |
                 add_time(root, run) | add_expect(root, run) | add_links(root, run);
    return print_json_line(root, failed);
}
