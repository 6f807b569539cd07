/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_load.c: recognise, size, create, fill.
 */
#include "layer_load.h"

#include <stdio.h>
#include <string.h>

#include "element_types.h"
#include "layer_sizes.h"
#include "program_exit.h"
#include "tensor_load.h"

/* An integer of the file's metadata into *value, if it is there. */
static int read_metadata_integer(const loaded_layer *loaded, const char *path, const char *key,
                                 int64_t minimum, int64_t *value) {
    const char *text = safetensors_metadata(loaded->file, key);
    if (text != NULL && (parse_integer(text, NULL, value) != 0 || *value < minimum)) {
        return program_fail(EXIT_BAD_FILE,
                            "%s: metadata %s: expected an integer of at least %lld, got '%s'", path,
                            key, (long long)minimum, text);
    }
    return EXIT_DONE;
}

static int32_t choose_dtype(const run_options *options, const layer_names *names) {
    const element_type *stored = element_type_in_file(names->entries[ROLE_OUT_WEIGHT]->dtype);
    if (options->dtype != ATTN_DTYPE_INVALID) {
        return options->dtype;
    }
    return stored != NULL && stored->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64
                                                                 : ATTN_DTYPE_FLOAT32;
}

static int configure(const run_options *options, loaded_layer *loaded) {
    char error[800];
    int64_t num_heads = 0;
    int64_t batch_first = 0;
    int64_t add_zero_attn = 0;
    int status = read_metadata_integer(loaded, options->layer_path, "num_heads", 1, &num_heads);
    status = status != EXIT_DONE ? status
                                 : read_metadata_integer(loaded, options->layer_path, "batch_first",
                                                         0, &batch_first);
    status = status != EXIT_DONE ? status
                                 : read_metadata_integer(loaded, options->layer_path,
                                                         "add_zero_attn", 0, &add_zero_attn);
    if (status != EXIT_DONE) {
        return status;
    }
    if (options->num_heads.given) {
        num_heads = options->num_heads.value;
    }
    if (num_heads == 0) {
        return program_fail(EXIT_USAGE,
                            "--num-heads: missing, and %s does not say it in its metadata",
                            options->layer_path);
    }
    loaded->config = (attn_mha_config){
        .struct_size = sizeof loaded->config,
        .num_heads = num_heads,
        .num_kv_heads = options->num_kv_heads.value,
        .head_dim = options->head_dim.value,
        .value_head_dim = options->value_head_dim.value,
        .dtype = choose_dtype(options, &loaded->names),
        .add_zero_attn = options->add_zero_attn || add_zero_attn != 0,
        .batch_first = options->batch_first || (batch_first != 0 && !options->sequence_first),
    };
    if (layer_sizes_derive(&loaded->names, &loaded->config, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", options->layer_path, error);
    }
    return EXIT_DONE;
}

static int load_entry(const run_options *options, loaded_layer *loaded, int role) {
    char error[800];
    owned_tensor values;
    const safetensors_entry *entry = loaded->names.entries[role];
    const char *parameter = layer_role_parameter(role);
    if (tensor_load_values(entry, loaded->config.dtype, &values, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", options->layer_path, error);
    }
    attn_status status =
        attn_mha_load_parameter(NULL, loaded->layer, parameter, &values.view, NULL);
    owned_tensor_free(&values);
    if (status == ATTN_OK) {
        return EXIT_DONE;
    }
    int is_named_in_detail = strncmp(attn_last_error(), entry->name, strlen(entry->name)) == 0;
    return program_fail(EXIT_BAD_FILE, "%s: %.200s%s%s", options->layer_path,
                        is_named_in_detail ? "" : entry->name, is_named_in_detail ? "" : ": ",
                        attn_last_error());
}

/* Some models have biases on a part of the projections only; the others' are zero. */
static int load_zero_bias(const run_options *options, loaded_layer *loaded, int role,
                          int64_t length) {
    char error[800];
    owned_tensor zeros;
    if (owned_tensor_allocate(&zeros, loaded->config.dtype, 1, &length, error, sizeof error) != 0) {
        return program_fail(EXIT_COMPUTATION, "%s: %s", options->layer_path, error);
    }
    attn_status status =
        attn_mha_load_parameter(NULL, loaded->layer, layer_role_parameter(role), &zeros.view, NULL);
    owned_tensor_free(&zeros);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library(options->layer_path, status);
}

static int load_absent_biases(const run_options *options, loaded_layer *loaded) {
    const attn_mha_config *config = &loaded->config;
    int64_t lengths[LAYER_ROLE_COUNT] = {0};
    if (config->no_bias) {
        return EXIT_DONE;
    }
    lengths[ROLE_OUT_BIAS] = config->embed_dim;
    if (loaded->names.entries[ROLE_IN_BIAS] == NULL) {
        lengths[ROLE_Q_BIAS] = config->num_heads * config->head_dim;
        lengths[ROLE_K_BIAS] = config->num_kv_heads * config->head_dim;
        lengths[ROLE_V_BIAS] = config->num_kv_heads * config->value_head_dim;
    }
    int status = EXIT_DONE;
    for (int role = 0; role < LAYER_ROLE_COUNT && status == EXIT_DONE; role++) {
        if (lengths[role] > 0 && loaded->names.entries[role] == NULL) {
            status = load_zero_bias(options, loaded, role, lengths[role]);
        }
    }
    return status;
}

static int load_parameters(const run_options *options, loaded_layer *loaded) {
    const safetensors_entry *const *entries = loaded->names.entries;
    if ((entries[ROLE_BIAS_K] == NULL) != (entries[ROLE_BIAS_V] == NULL)) {
        return program_fail(
            EXIT_BAD_FILE, "%s: %s: missing, though %s is there", options->layer_path,
            layer_role_parameter(entries[ROLE_BIAS_K] == NULL ? ROLE_BIAS_K : ROLE_BIAS_V),
            layer_role_parameter(entries[ROLE_BIAS_K] == NULL ? ROLE_BIAS_V : ROLE_BIAS_K));
    }
    int status = EXIT_DONE;
    for (int role = 0; role < LAYER_ROLE_COUNT && status == EXIT_DONE; role++) {
        if (entries[role] != NULL) {
            status = load_entry(options, loaded, role);
        }
    }
    return status != EXIT_DONE ? status : load_absent_biases(options, loaded);
}

int layer_load(const run_options *options, attn_context *context, loaded_layer *loaded) {
    char error[1000];
    *loaded = (loaded_layer){0};
    if (safetensors_open(options->layer_path, &loaded->file, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s", error);
    }
    if (layer_names_recognise(loaded->file, options->prefix, &loaded->names, error, sizeof error) !=
        0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", options->layer_path, error);
    }
    int exit_code = configure(options, loaded);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    attn_status status = attn_mha_create(context, &loaded->config, &loaded->layer);
    if (status != ATTN_OK) {
        return program_fail_library(options->layer_path, status);
    }
    return load_parameters(options, loaded);
}

void loaded_layer_free(loaded_layer *loaded) {
    attn_mha_destroy(loaded->layer);
    safetensors_close(loaded->file);
    *loaded = (loaded_layer){0};
}
