/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_model.c: the weights of a decoder of Llama's shape: of a checkpoint, or made up.
 */
#include "engine_model.h"

#include <glob.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

#include "engine_config.h"
#include "safetensors_read.h"
#include "tensor_load.h"

/* ---- which weights there are ---- */

/* Lengths that a shape is made of. */
typedef enum size_name { NONE, HIDDEN, INTERMEDIATE, VOCABULARY, HEADS, KV_HEADS, HEAD } size_name;

/* A weight by the name that checkpoints have for it, behind "model.layers.N." in a layer. */
typedef struct weight_place {
    const char *name;
    size_t offset; /* of its pointer in engine_layer or engine_model */
    size_name rows;
    size_name columns; /* NONE: rank 1 */
    bool may_be_absent;
} weight_place;

static const weight_place layer_weights[] = {
    {"input_layernorm.weight", offsetof(engine_layer, attention_norm), HIDDEN, NONE, false},
    {"self_attn.q_proj.weight", offsetof(engine_layer, query_weight), HEADS, HIDDEN, false},
    {"self_attn.q_proj.bias", offsetof(engine_layer, query_bias), HEADS, NONE, true},
    {"self_attn.k_proj.weight", offsetof(engine_layer, key_weight), KV_HEADS, HIDDEN, false},
    {"self_attn.k_proj.bias", offsetof(engine_layer, key_bias), KV_HEADS, NONE, true},
    {"self_attn.v_proj.weight", offsetof(engine_layer, value_weight), KV_HEADS, HIDDEN, false},
    {"self_attn.v_proj.bias", offsetof(engine_layer, value_bias), KV_HEADS, NONE, true},
    {"self_attn.q_norm.weight", offsetof(engine_layer, query_norm), HEAD, NONE, true},
    {"self_attn.k_norm.weight", offsetof(engine_layer, key_norm), HEAD, NONE, true},
    {"self_attn.o_proj.weight", offsetof(engine_layer, output_weight), HIDDEN, HEADS, false},
    {"post_attention_layernorm.weight", offsetof(engine_layer, mlp_norm), HIDDEN, NONE, false},
    {"mlp.gate_proj.weight", offsetof(engine_layer, gate_weight), INTERMEDIATE, HIDDEN, false},
    {"mlp.up_proj.weight", offsetof(engine_layer, up_weight), INTERMEDIATE, HIDDEN, false},
    {"mlp.down_proj.weight", offsetof(engine_layer, down_weight), HIDDEN, INTERMEDIATE, false},
};

static const weight_place model_weights[] = {
    {"model.embed_tokens.weight", offsetof(engine_model, embedding), VOCABULARY, HIDDEN, false},
    {"model.norm.weight", offsetof(engine_model, norm), HIDDEN, NONE, false},
    {"lm_head.weight", offsetof(engine_model, head), VOCABULARY, HIDDEN, true},
};

enum {
    LAYER_WEIGHTS = sizeof layer_weights / sizeof layer_weights[0],
    MODEL_WEIGHTS = sizeof model_weights / sizeof model_weights[0]
};

static int64_t length_of(const engine_config *config, size_name name) {
    const int64_t lengths[] = {
        [NONE] = 1,
        [HIDDEN] = config->hidden_size,
        [INTERMEDIATE] = config->intermediate_size,
        [VOCABULARY] = config->vocabulary_size,
        [HEADS] = config->num_heads * config->head_dim,
        [KV_HEADS] = config->num_kv_heads * config->head_dim,
        [HEAD] = config->head_dim,
    };
    return lengths[name];
}

static float **pointer_at(void *owner, size_t offset) {
    return (float **)((char *)owner + offset);
}

/* ---- where they come from ---- */

/* Something that makes the numbers of a weight: 0, or -1 after an error. `name` is its whole name. */
typedef struct weight_source {
    int (*make)(const struct weight_source *source, const char *name, const weight_place *place,
                const engine_config *config, float **weight);
    safetensors_file **files;
    size_t num_files;
    char *error;
    size_t error_bytes;
} weight_source;

/* A config names neither biases nor norms of all models, so that files say which there are. */
static const safetensors_entry *find_entry(const weight_source *source, const char *name) {
    const safetensors_entry *found = NULL;
    for (size_t i = 0; i < source->num_files && found == NULL; ++i) {
        found = safetensors_find(source->files[i], name);
    }
    return found;
}

static int load_weight(const weight_source *source, const char *name, const weight_place *place,
                       const engine_config *config, float **weight) {
    const safetensors_entry *entry = find_entry(source, name);
    if (entry == NULL) {
        if (!place->may_be_absent) {
            (void)snprintf(source->error, source->error_bytes, "the checkpoint has no %s", name);
        }
        return place->may_be_absent ? 0 : -1;
    }
    const int64_t shape[] = {length_of(config, place->rows), length_of(config, place->columns)};
    const int32_t rank = place->columns == NONE ? 1 : 2;
    owned_tensor tensor = {0};
    if (entry->rank != rank || entry->shape[0] != shape[0] ||
        (rank == 2 && entry->shape[1] != shape[1])) {
        (void)snprintf(source->error, source->error_bytes,
                       "%s: not of the shape that config.json says", name);
        return -1;
    }
    if (tensor_load_values(entry, ATTN_DTYPE_FLOAT32, &tensor, source->error,
                           source->error_bytes) != 0) {
        return -1;
    }
    *weight = tensor.memory;
    return 0;
}

/* Of about the size that training begins with, so that activations neither vanish nor explode. */
static int make_up_weight(const weight_source *source, const char *name, const weight_place *place,
                          const engine_config *config, float **weight) {
    (void)source;
    if (place->may_be_absent) {
        return 0;
    }
    const int64_t columns = length_of(config, place->columns);
    const int64_t count = length_of(config, place->rows) * columns;
    const float size = place->columns == NONE ? 0.1F : 1.7F / sqrtf((float)columns);
    uint32_t state = 1;
    for (; *name != '\0'; ++name) {
        state = 31 * state + (unsigned char)*name;
    }
    *weight = malloc((size_t)count * sizeof **weight);
    for (int64_t i = 0; *weight != NULL && i < count; ++i) {
        state = state * 1664525U + 1013904223U;
        const float chance = (float)(state >> 8) / (1 << 23) - 1;
        (*weight)[i] = place->columns == NONE ? 1 + size * chance : size * chance;
    }
    return *weight == NULL ? -1 : 0;
}

static int make_all(const weight_source *source, engine_model *model) {
    char name[128];
    model->layers = calloc((size_t)model->config.num_layers, sizeof *model->layers);
    if (model->layers == NULL) {
        (void)snprintf(source->error, source->error_bytes, "out of memory");
        return -1;
    }
    for (int i = 0; i < MODEL_WEIGHTS; ++i) {
        const weight_place *place = &model_weights[i];
        if (source->make(source, place->name, place, &model->config,
                         pointer_at(model, place->offset)) != 0) {
            return -1;
        }
    }
    for (int64_t i = 0; i < model->config.num_layers * LAYER_WEIGHTS; ++i) {
        const weight_place *place = &layer_weights[i % LAYER_WEIGHTS];
        engine_layer *layer = &model->layers[i / LAYER_WEIGHTS];
        (void)snprintf(name, sizeof name, "model.layers.%d.%s", (int)(i / LAYER_WEIGHTS),
                       place->name);
        if (source->make(source, name, place, &model->config, pointer_at(layer, place->offset))) {
            return -1;
        }
    }
    if (model->head == NULL && !model->config.ties_head) {
        (void)snprintf(source->error, source->error_bytes, "the checkpoint has no lm_head.weight");
        return -1;
    }
    if (model->head == NULL) {
        model->head = model->embedding;
    }
    return 0;
}

/* ---- what is left in the files ---- */

static bool is_listed(const weight_place *places, int count, const char *name) {
    for (int i = 0; i < count; ++i) {
        if (strcmp(places[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Frequencies of the rotation, which old checkpoints have in every layer, follow from rope_theta. */
static bool is_known(const engine_config *config, const char *name) {
    static const char prefix[] = "model.layers.";
    const size_t length = sizeof prefix - 1;
    if (strncmp(name, prefix, length) != 0) {
        return is_listed(model_weights, MODEL_WEIGHTS, name);
    }
    char *end;
    const long layer = strtol(name + length, &end, 10);
    return layer >= 0 && layer < config->num_layers && *end == '.' &&
           (is_listed(layer_weights, LAYER_WEIGHTS, end + 1) ||
            strcmp(end + 1, "self_attn.rotary_emb.inv_freq") == 0);
}

/* A weight that is not used would change numbers: a bias, say. */
static int expect_no_other(const weight_source *source, const engine_config *config) {
    for (size_t i = 0; i < source->num_files; ++i) {
        for (int64_t entry = 0; entry < safetensors_count(source->files[i]); ++entry) {
            const char *name = safetensors_at(source->files[i], entry)->name;
            if (!is_known(config, name)) {
                (void)snprintf(source->error, source->error_bytes,
                               "%s: a weight that this program does not compute with", name);
                return -1;
            }
        }
    }
    return 0;
}

/* ---- the calls ---- */

static int load_files(engine_model *model, const glob_t *paths, char *error, size_t error_bytes) {
    weight_source source = {.make = load_weight, .error = error, .error_bytes = error_bytes};
    source.files = calloc(paths->gl_pathc, sizeof *source.files);
    int status = source.files == NULL ? -1 : 0;
    while (status == 0 && source.num_files < paths->gl_pathc) {
        status = safetensors_open(paths->gl_pathv[source.num_files],
                                  &source.files[source.num_files], error, error_bytes);
        source.num_files += status == 0;
    }
    if (status == 0) {
        status = expect_no_other(&source, &model->config);
    }
    if (status == 0) {
        status = make_all(&source, model);
    }
    for (size_t i = 0; i < source.num_files; ++i) {
        safetensors_close(source.files[i]);
    }
    free(source.files);
    return status;
}

int engine_model_load(engine_model *model, const char *folder, char *error, size_t error_bytes) {
    char path[4096];
    *model = (engine_model){0};
    (void)snprintf(error, error_bytes, "out of memory");
    if (snprintf(path, sizeof path, "%s/config.json", folder) >= (int)sizeof path) {
        (void)snprintf(error, error_bytes, "the folder's name is too long");
        return -1;
    }
    if (engine_config_read(path, &model->config, error, error_bytes) != 0) {
        return -1;
    }
    glob_t paths;
    (void)snprintf(path, sizeof path, "%s/*.safetensors", folder);
    if (glob(path, GLOB_ERR, NULL, &paths) != 0) {
        (void)snprintf(error, error_bytes, "%s: no such file", path);
        return -1;
    }
    const int status = load_files(model, &paths, error, error_bytes);
    globfree(&paths);
    if (status != 0) {
        engine_model_free(model);
    }
    return status;
}

int engine_model_make_up(engine_model *model, const engine_config *config) {
    char error[64];
    const weight_source source = {
        .make = make_up_weight, .error = error, .error_bytes = sizeof error};
    *model = (engine_model){.config = *config};
    const int status = make_all(&source, model);
    if (status != 0) {
        engine_model_free(model);
    }
    return status;
}

void engine_model_free(engine_model *model) {
    if (model == NULL) {
        return;
    }
    if (model->head == model->embedding) {
        model->head = NULL;
    }
    for (int i = 0; i < MODEL_WEIGHTS; ++i) {
        free(*pointer_at(model, model_weights[i].offset));
    }
    for (int64_t i = 0; model->layers != NULL && i < model->config.num_layers * LAYER_WEIGHTS;
         ++i) {
        free(*pointer_at(&model->layers[i / LAYER_WEIGHTS],
                         layer_weights[i % LAYER_WEIGHTS].offset));
    }
    free(model->layers);
    *model = (engine_model){0};
}
